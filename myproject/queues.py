"""The queues of the project, in one table; settings, canaries and routes follow from it.

By nature, so that a long report never stands in front of an order, nor a mailing to everybody in front of a password
reset. A plain worker consumes them all; the deploy files have a family of workers for each of some queues.
"""

from collections.abc import Iterable
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple


class Queue(NamedTuple):
    purpose: str
    # The workers that read it, by the name that they have in compose, systemd and Kubernetes.
    family: str
    # How long nothing may come through until somebody is told: longer than what may rightly stand before it.
    late_after: timedelta
    # The tasks of all apps that begin so.
    verbs: tuple[str, ...] = ()


QUEUES = {
    # No order waits behind a clean-up.
    "default": Queue("What can wait.", "default", timedelta(minutes=5), ("sync", "clear")),
    # A sweep takes milliseconds and expires soon: it must not queue behind the work that it rescues.
    "orders": Queue("What somebody waits for, and sweeps.", "orders", timedelta(minutes=3), ("check",)),
    "mail": Queue("One mail each.", "mail", timedelta(minutes=5), ("send",)),
    "bulk": Queue("Mailings to everybody.", "mail", timedelta(minutes=20)),
    # Ten minutes each, and no customer waits for an import.
    "reports": Queue("What takes minutes.", "reports", timedelta(minutes=40), ("generate", "import")),
}


def routes(apps: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return Celery's routes by task name: what each app says in its `queues.py` comes first, then the verbs.

    A `queue` in the decorator of a task is deprecated since Celery 5.7.
    """
    own = [import_module(f"{app}.queues").ROUTES for app in apps if find_spec(f"{app}.queues")]
    verbs = {f"*.tasks.{verb}_*": name for name, queue in QUEUES.items() for verb in queue.verbs}
    return {pattern: {"queue": name} for table in (*own, verbs) for pattern, name in table.items()}
