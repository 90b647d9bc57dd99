"""Record anew what this release sends, when it is out: `python -m tests.releases`. It needs no servers."""

import json
from typing import Any

import django
from celery import Task

from myproject.celery import app

django.setup()

from orders.tasks import import_options  # noqa: E402
from tests.releases import FILE, PK, UUID  # noqa: E402

# Keyword arguments of each task that is sent with some; of all others none.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "orders.tasks.import_products": {"import_id": UUID},
    "accounts.tasks.send_account_email": {"mail_id": PK},
    "accounts.tasks.send_notification_email": {"user_id": PK},
    "accounts.tasks.send_welcome_email": {"user_id": PK},
    "accounts.tasks.sync_user_to_crm": {"user_id": PK},
    "myproject.tasks.add": {"x": 2, "y": 3},
    "myproject.tasks.canary": {"queue": "default"},
    "myproject.tasks.multiply": {"x": 2, "y": 3},
    "myproject.tasks.send_alert": {"alert_id": PK},
    "myproject.tasks.wait": {"seconds": 1},
    "orders.tasks.handle_import_failure": {"import_id": UUID},
    "orders.tasks.make_thumbnails": {"product_id": PK},
    "orders.tasks.process_order": {"order_id": PK},
    "orders.tasks.refund_order": {"order_id": PK},
    "orders.tasks.send_digest_emails": {"week": "2026-11-16"},
    "orders.tasks.send_order_confirmation": {"order_id": PK},
    "orders.tasks.sync_inventory": {"sync_id": PK},
    "reports.tasks.erase_account": {"user_id": PK},
    "reports.tasks.generate_pack": {"pack_id": UUID},
    "reports.tasks.generate_report": {"report_id": UUID},
    "reports.tasks.plan_scheduled_report": {"schedule_id": UUID},
}
# What differs each time, or names the machine.
NOT_RECORDED = {"id", "root_id", "origin", "sent_at"}


def record(task: Task) -> dict[str, Any]:
    """Publish a message into this process's memory and take it out again, as it is in the queue."""
    options = import_options(UUID) if task.name == "orders.tasks.import_products" else {}
    task.apply_async(**({"kwargs": ARGUMENTS.get(task.name, {})} | options))
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
