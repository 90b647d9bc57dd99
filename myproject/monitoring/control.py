"""Our remote-control commands: one for the status page, and replacements for unsafe ones of Celery.

Those would stop the shop or break a guarantee, and are refused with a reason (docs/operations/commands.md).
"""

from datetime import UTC, datetime
from typing import Any

from celery.worker import control
from celery.worker.control import control_command, inspect_command, nok
from celery.worker.state import active_requests

# Celery's own, for what is in order.
SHRINK, AUTOSCALE, STATS = control.pool_shrink, control.autoscale, control.stats


@inspect_command()
def work(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Return this worker's start time, its queues and its active tasks."""
    return {
        "seconds": (datetime.now(UTC) - state.consumer.controller.startup_time).total_seconds(),
        "queues": sorted(queue.name for queue in state.consumer.task_consumer.queues),
        "running": sorted(request.name for request in active_requests),
    }


@control_command(args=[("task_name", str), ("rate_limit", str)], signature="<task_name> <rate_limit>")
def rate_limit(state: Any, **kwargs: Any) -> dict[str, str]:
    """Refuse rate limits, which would stop all queues of this worker."""
    return nok(
        "A worker holds messages that exceed the rate limit, and receives none from any queue meanwhile. "
        "To pause a queue: cancel_consumer."
    )


@control_command(
    args=[("task_name", str), ("soft", float), ("hard", float)], signature="<task_name> <soft_secs> [hard_secs]"
)
def time_limit(state: Any, **kwargs: Any) -> dict[str, str]:
    """Refuse to change a task's time limits: its lease relies on them."""
    return nok(
        "A lease is safe only while it is longer than the hard time limit of its task. "
        "Change the setting of its lease, and restart."
    )


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: Any, n: int = 1, **kwargs: Any) -> Any:
    """Shrink the pool by n processes, and leave one."""
    processes = state.consumer.pool.num_processes
    if not 0 < n < processes:
        return nok(f"There are {processes} processes, and one must stay. To pause a queue: cancel_consumer.")
    return SHRINK(state, n=n, **kwargs)


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(state: Any, max: int | None = None, min: int | None = None) -> Any:
    """Modify autoscale settings, and leave one process."""
    if max is not None and max < 1:
        return nok("One process must stay. To pause a queue: cancel_consumer.")
    return AUTOSCALE(state, max=max, min=min)


@inspect_command()
def stats(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Request worker statistics; of the broker no more than its kind: options and addresses may hold passwords."""
    found: dict[str, Any] = STATS(state)
    found["broker"] = {"transport": (found.get("broker") or {}).get("transport", "")}
    return found
