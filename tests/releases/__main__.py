"""Record anew what this release sends, when it is out: `python -m tests.releases`. It needs no servers."""

import inspect
import json
from typing import Any

import django
from celery import Task

from myproject.celery import app

django.setup()

from orders.tasks import import_options  # noqa: E402
from tests.releases import FILE, PK, UUID  # noqa: E402

# What an argument of that name is given; of all others its type says it.
EXAMPLES: dict[str, Any] = {"queue": "default", "seconds": 1, "sync_id": PK, "week": "2026-11-16", "x": 2, "y": 3}
# What differs each time, or names the machine.
NOT_RECORDED = {"id", "root_id", "origin", "sent_at"}


def arguments(task: Task) -> dict[str, Any]:
    """Return a value for each argument that has no default."""
    parameters = inspect.signature(task.run).parameters.values()
    wanted = [each for each in parameters if each.default is each.empty or each.name in EXAMPLES]
    return {each.name: EXAMPLES.get(each.name, PK if each.annotation is int else UUID) for each in wanted}


def record(task: Task) -> dict[str, Any]:
    """Publish a message into this process's memory and take it out again, as it is in the queue."""
    options = import_options(UUID) if task.name == "orders.tasks.import_products" else {}
    task.apply_async(**({"kwargs": arguments(task)} | options))
    with app.connection_for_read() as connection:
        queue = app.amqp.router.route({}, task.name)["queue"].bind(connection.default_channel)
        message = queue.get(no_ack=True)
    headers = {name: value for name, value in message.headers.items() if name not in NOT_RECORDED}
    return {"headers": headers, "body": message.payload}


def main() -> None:
    app.conf.update(broker_url="memory://", broker_read_url="memory://", broker_write_url="memory://")
    app.loader.import_default_modules()
    ours = sorted(name for name in app.tasks if not name.startswith("celery."))
    # A line for each, so that a change shows which task's it is.
    lines = (f"{json.dumps(name)}: {json.dumps(record(app.tasks[name]), sort_keys=True)}" for name in ours)
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
