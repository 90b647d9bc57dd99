"""Broker-specific settings for Redis and RabbitMQ; CELERY_BROKER_URL decides which apply."""

from typing import Any, NamedTuple

from django.conf import settings
from kombu import Exchange

# The queue for what RabbitMQ gives up: rejected, over a limit of length or of deliveries, or expired.
DEAD_LETTERS = "dead_letters"


class Broker(NamedTuple):
    """In what one broker is set otherwise than another; `worker_options` and `probe_options` go above the `options`."""

    # For publishers that a customer waits for.
    options: dict[str, Any]
    # For workers, which can wait (`myproject/celery.py`).
    worker_options: dict[str, Any]
    # For status pages and probes (`myproject/monitoring/broker.py`).
    probe_options: dict[str, Any]
    # Of each queue.
    queue: dict[str, Any]


REDIS = Broker(
    options={
        # An unacknowledged message is redelivered after this; it must exceed the longest hard time limit.
        "visibility_timeout": 3600,
        # Look for such messages every 2 seconds; the default is every 100.
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        # Without these a request hangs forever on a broker that is frozen or unreachable. A click on a frozen one waits
        # three times as long: for the old connection, for a new one, and for its retry.
        "socket_timeout": 0.7,
        "socket_connect_timeout": 0.7,
        # Notice a half-open connection after about 10 seconds; the default is 51.
        "health_check_interval": 5,
    },
    worker_options={"socket_timeout": 10, "socket_connect_timeout": 5},
    probe_options={"max_retries": 0, "socket_timeout": 1, "socket_connect_timeout": 1},
    # No exchange, no binding: when Redis has lost everything, nothing has to be declared anew.
    queue={},
)
RABBITMQ = Broker(
    options={
        # Wait until the message is safe on disk: without it, messages that RabbitMQ refuses are lost silently.
        "confirm_publish": True,
        # As above; here for the confirmation, the end of the old connection and the beginning of a new one.
        "read_timeout": 0.7,
        "write_timeout": 0.7,
    },
    worker_options={"read_timeout": 10, "write_timeout": 10},
    probe_options={"read_timeout": 1, "write_timeout": 1, "confirm_publish": True},
    queue={
        # By a topic: only then does RabbitMQ itself keep a retry until it is due. A worker that kept it would take
        # nothing else meanwhile, since of a quorum queue it takes only so many messages.
        "exchange": Exchange("shop", type="topic"),
        # Quorum: on disk, on several machines where there are several. The timeout, in milliseconds, exceeds the
        # longest hard time limit; RabbitMQ's own is half an hour, and before 3.12 only rabbitmq.conf can change it.
        "queue_arguments": {
            "x-queue-type": "quorum",
            "x-consumer-timeout": 3_600_000,
            # An argument and no policy, which only an administrator of RabbitMQ could set.
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
        },
    },
)


def broker(url: str) -> Broker:
    """Return what the broker at that address needs: RabbitMQ by `amqp://` and `amqps://`, else Redis or Valkey."""
    return RABBITMQ if url.startswith(("amqp", "pyamqp")) else REDIS


def knock(channel: Any) -> None:
    """Write a value of constant size, since a full broker or a replica answers reads and refuses writes."""
    if settings.BROKER is RABBITMQ:
        # Confirmed and dropped: no queue has this name.
        channel.basic_publish(channel.prepare_message(b""), exchange="", routing_key="nowhere")
    else:
        channel.client.set("unacked_ready", 1, ex=60)
