"""What a worker answers when the page of the shop's state asks: one command, since each asking takes its time."""

from datetime import UTC, datetime
from typing import Any

from celery.worker.control import inspect_command
from celery.worker.state import active_requests


@inspect_command()
def work(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Say since when this worker is here, which queues it reads and what it runs."""
    return {
        "seconds": (datetime.now(UTC) - state.consumer.controller.startup_time).total_seconds(),
        "queues": sorted(queue.name for queue in state.consumer.task_consumer.queues),
        "running": sorted(request.name for request in active_requests),
    }
