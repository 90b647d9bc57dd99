"""Queues of tasks whose first word does not say it; the others follow from `myproject/queues.py`."""

ROUTES = {
    "orders.tasks.*digest*": "bulk",
    "orders.tasks.process_*": "orders",
    "orders.tasks.refund_*": "orders",
    "orders.tasks.handle_*": "orders",
}
