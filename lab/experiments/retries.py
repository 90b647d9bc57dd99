"""What is tried again, and how it ends."""

from durable import mail
from lab import rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, at_least, exactly, experiment
from lab.naive import retries as naive
from orders import tasks
from orders.models import InventorySync, Order, SyncStatus


def asked(lab: Arena, fault: str) -> int:
    """Return how often the fault has struck."""
    return int(lab.sandbox("/controls.json")["faults"][fault]["struck"])


def naive_everything(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    lab.fault("smtp_permanent", rate=1)
    lab.say("The mail server says that there is no such address: 550.")
    naive.send_welcome.delay(rows.person().email)
    lab.until(lambda: lab.results() == 1, "the end")
    return lab.count(asked=asked(lab, "smtp_permanent"))


def ours_everything(lab: Arena) -> Numbers:
    lab.common(OURS)
    [order] = rows.place_many(1)
    lab.fault("smtp_permanent", rate=1)
    lab.say("The mail server says that there is no such address: 550.")
    tasks.process_order.delay(order_id=order.pk)
    failed = Order.objects.mail_failed().filter(pk=order.pk)
    lab.until(failed.exists, "the mail to fail", sweep=True)
    lab.say(f"The row says: {failed.get().mail_error}")
    lab.watch(3, lambda: {"asked": asked(lab, "smtp_permanent")}, sweep=True)
    return lab.count(noted=failed.count())


experiment(
    "retry-of-everything",
    "except Exception, and retry",
    practice="Retry the mail whatever goes wrong.",
    fault="The address does not exist; the server answers 550, never try again.",
    naive=Side(naive_everything, (naive.send_welcome,), "except Exception as error", {"asked": at_least(4)}),
    ours=Side(
        ours_everything,
        (mail.send, mail._error),
        "if code >= 500",
        {"asked": exactly(1), "noted": exactly(1)},
    ),
    why="An address that does not exist is tried as often as a server that is busy, and mail servers notice. Ours "
    "retries what is temporary; what is permanent ends the row, with a reason that a person can read.",
    answers=("durable/mail.py · send", "durable/errors.py · PermanentError", "durable/task.py · autoretry_for"),
    test="tests/test_mail.py",
    docs="tour/mail.md",
)


def naive_never_comes(lab: Arena) -> Numbers:
    lab.common(NAIVE)
    row = InventorySync.objects.open_one()
    lab.fault("warehouse_error", rate=1)
    lab.say("The warehouse answers 500 to everything.", asked=1)
    naive.sync_inventory.delay(row.pk)
    lab.until(lambda: lab.results("FAILURE") == 1, "the last attempt")
    lab.say("Celery says FAILURE.")
    return state_of(lab, row)


def ours_never_comes(lab: Arena) -> Numbers:
    lab.common(OURS)
    row = InventorySync.objects.open_one()
    lab.fault("warehouse_error", rate=1)
    lab.say("The warehouse answers 500 to everything.", asked=1)
    tasks.sync_inventory.delay(sync_id=row.pk)
    lab.until(lambda: not InventorySync.objects.get(pk=row.pk).is_unfinished, "the last attempt", 90)
    lab.say(f"The row says: {InventorySync.objects.get(pk=row.pk).error}")
    return state_of(lab, row)


def state_of(lab: Arena, row: InventorySync) -> Numbers:
    found = InventorySync.objects.get(pk=row.pk)
    return lab.count(failed=int(found.status == SyncStatus.FAILED), waiting=int(found.is_unfinished))


experiment(
    "max-retries-exceeded",
    "except MaxRetriesExceededError around retry(exc=exc)",
    practice="Mark the row as failed when the retries are used up.",
    fault="The warehouse answers 500 until the last attempt is over.",
    naive=Side(
        naive_never_comes,
        (naive.sync_inventory,),
        "except MaxRetriesExceededError",
        {"asked": exactly(1), "failed": exactly(0), "waiting": exactly(1)},
    ),
    ours=Side(
        ours_never_comes,
        (tasks.SyncTask,),
        "def on_failure",
        {"asked": exactly(1), "failed": exactly(1), "waiting": exactly(0)},
    ),
    why="After the last attempt Celery raises the exc that it was given, never MaxRetriesExceededError: the branch "
    "does not run, and the row is open forever. Ours ends it in on_failure, and the sweep ends what even that "
    "misses.",
    answers=("orders/tasks.py · SyncTask", "reports/tasks.py · settling", "reports/services.py · put_off"),
    test="tests/orders/test_inventory.py",
    docs="tour/schedules.md",
)
