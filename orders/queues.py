"""Routes of tasks whose name does not determine the queue; see `myproject/queues.py`."""

ROUTES = {
    "orders.tasks.*digest*": "bulk",
    "orders.tasks.process_*": "orders",
    "orders.tasks.refund_*": "orders",
    "orders.tasks.handle_*": "orders",
}
