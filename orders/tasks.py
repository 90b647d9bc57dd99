import logging
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, timedelta
from math import ceil
from typing import Any

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from accounts.tasks import send_notification_email
from durable import mail
from durable.errors import PermanentError, TemporaryError
from durable.task import Task, queue_many
from myproject.storage.clean_ups import CLEAR_LIMITS, delete_in_chunks, going_on_next_night

from . import digests, emails, import_services, inventory, services, thumbnails
from .models import (
    MOST_PICTURE_ATTEMPTS,
    PICTURE_LEASE,
    Digest,
    InventoryDifference,
    InventorySync,
    Kind,
    Order,
    OrderEvent,
    Payment,
    Product,
    ProductImport,
    SyncStatus,
    week_of,
)
from .schedules import SCHEDULES

log = logging.getLogger(__name__)

# Orders that one wake-up takes along: fifty at a time drain a backlog far faster than one by one.
SET = 50
# Digests that one sweep queues again.
SWEPT_DIGESTS = 10_000
# What a sweep queues is dropped when the sweep itself would be, before the next one: a mail server or a worker that is
# away must not fill the broker.
SWEPT_DIGESTS_EXPIRE = SCHEDULES["Check unsent digests"].expires
SWEPT_MAIL_EXPIRE = SCHEDULES["Check pending orders"].expires
SWEPT_PICTURES_EXPIRE = SCHEDULES["Check pending pictures"].expires
NOISE_KEPT = timedelta(days=365)
DIGESTS_KEPT = timedelta(weeks=10)
LEASE_SECONDS = settings.ORDER_LEASE.total_seconds()
# Worker deaths count as well; after these an import ends *failed*, never "running" for ever.
MAX_IMPORT_ATTEMPTS = 5
INVENTORY_LEASE_SECONDS = settings.INVENTORY_LEASE.total_seconds()


class OrderTask(Task):
    """Shows on the order's time line why its task is tried again."""

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        # What the provider failed in is on the time line already; the database may be what has failed.
        if not isinstance(exc, TemporaryError):
            with suppress(DatabaseError):
                OrderEvent.objects.record([kwargs["order_id"]], Kind.INTERRUPTED, detail=repr(exc), task_id=task_id)


# That it has started, the order's own row says.
@shared_task(
    base=OrderTask,
    bind=True,
    soft_time_limit=LEASE_SECONDS * 0.8,
    time_limit=LEASE_SECONDS,
    track_started=False,
)
def process_order(self: Task, *, order_id: int) -> dict[str, Any]:
    """Process an order, and others that wait. Safe to repeat: each step resumes from its row, a charge has its key."""
    claimed = services.claim(order_id, limit=SET, task_id=self.request.id)
    if not claimed:
        # Another task took the order along; nobody reads that nothing was left to do, and a row of it costs a commit.
        self.request.ignore_result = True
        return {"claimed": 0, "completed": 0}
    processed = services.process_orders(claimed, task_id=self.request.id)
    queue_confirmations(processed.completed)
    if processed.unanswered:
        raise processed.unanswered[0]
    return {"claimed": len(claimed), "completed": len(processed.completed)}


def queue_confirmations(order_ids: Iterable[int]) -> None:
    """Queue a mail for each of these orders."""
    queue_many(send_order_confirmation, [{"order_id": pk} for pk in order_ids])


@shared_task(base=OrderTask, bind=True, soft_time_limit=LEASE_SECONDS * 0.8, time_limit=LEASE_SECONDS)
def refund_order(self: Task, *, order_id: int) -> dict[str, Any]:
    """Refund an order that staff wants refunded. Safe to repeat: the refund has its key, the row ends once."""
    return {"refunded": services.refund(order_id, task_id=self.request.id)}


@shared_task(bind=True, soft_time_limit=50, time_limit=60, ignore_result=True)
def send_order_confirmation(self: Task, *, order_id: int) -> None:
    """Confirm a completed order by mail. Safe to repeat: the row is claimed, and remembers that it was sent."""
    claimed = Order.objects.select_related("customer").claim_mail(order_id)
    mail.deliver(claimed, emails.confirmation, task_id=self.request.id or "")


@shared_task(soft_time_limit=50, time_limit=PICTURE_LEASE.total_seconds(), ignore_result=True)
def make_thumbnails(*, product_id: int) -> None:
    """Make the thumbnails of a product's picture. Safe to repeat: the files are the same, the newest picture wins."""
    thumbnails.make_thumbnails(product_id)


@shared_task(ignore_result=True)
def check_pending_pictures() -> None:
    """Queue again pictures that were left behind, and give up those that died too often. Safe to repeat: so is each."""
    for product in Product.objects.pictures_left_behind().order_by("picture_due_at")[:100]:
        if product.picture_attempts >= MOST_PICTURE_ATTEMPTS:
            product.mark_picture_failed(f"No thumbnails could be made in {MOST_PICTURE_ATTEMPTS} attempts.")
        else:
            make_thumbnails.apply_async(kwargs={"product_id": product.pk}, expires=SWEPT_PICTURES_EXPIRE)


@shared_task(ignore_result=True)
def check_pending_orders() -> None:
    """Queue again what was left behind, and hand to a person what is too old. Safe to repeat: so is each of them."""
    services.give_up_old_orders()
    nudge(process_order, Order.objects.left_behind().young().order_by("due_at").values_list("pk", "reference")[:500])
    refunds = Payment.objects.refund_overdue().order_by("refund_due_at")
    nudge(refund_order, refunds.values_list("order", "order__reference")[:500])
    # Each takes the others of its set along: what waits for a mail server must not fill the broker.
    owed = Order.objects.mail_due().order_by("mail_due_at").values_list("pk", "reference")[: 500 : mail.SET]
    nudge(send_order_confirmation, owed, expires=SWEPT_MAIL_EXPIRE)
    InventorySync.objects.give_up()
    for pk in InventorySync.objects.left_behind().values_list("pk", flat=True):
        sync_inventory.delay(sync_id=pk)


def nudge(task: Task, orders: Iterable[tuple[int, str]], **options: Any) -> None:
    """Queue the task for each of these orders, given by id and reference."""
    for pk, reference in orders:
        with bound_contextvars(order=reference):
            task.apply_async(kwargs={"order_id": pk}, **options)


class SyncTask(Task):
    """Ends the run when its task has failed for good."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        super().on_failure(exc, task_id, args, kwargs, einfo)
        is_known = isinstance(exc, (TemporaryError, PermanentError))
        reason = str(exc) if is_known else f"It could not be finished ({type(exc).__name__})."
        InventorySync.objects.filter(claimed_by=task_id).close(SyncStatus.FAILED, error=reason[:300])


@shared_task(
    base=SyncTask,
    bind=True,
    ignore_result=True,
    soft_time_limit=INVENTORY_LEASE_SECONDS * 0.8,
    time_limit=INVENTORY_LEASE_SECONDS,
)
def sync_inventory(self: Task, *, sync_id: int | None = None) -> None:
    """Take over what has changed at the warehouse. Safe to repeat: a run is claimed, a level is followed once."""
    if not settings.WAREHOUSE_URL:
        log.info("There is no warehouse: WAREHOUSE_URL is empty")
        return
    pk = sync_id or InventorySync.objects.open_one().pk
    if run := InventorySync.objects.claim(self.request.id, pk):
        inventory.synchronise(run)


@shared_task(soft_time_limit=280, time_limit=300)
def send_weekly_digest() -> dict[str, int]:
    """Plan this week's digests and queue their sending. Safe to repeat: a person has one row a week."""
    week = week_of(timezone.now())
    planned = digests.plan(week)
    return {"planned": planned, "messages": queue_digests(week, planned)}


def queue_digests(week: date, people: int, **options: Any) -> int:
    """Queue a message for each chunk of so many people; return how many."""
    return queue_many(send_digest_emails, [{"week": week.isoformat()}] * ceil(people / digests.CHUNK), **options)


@shared_task(soft_time_limit=50, time_limit=60, ignore_result=True)
def send_digest_emails(*, week: str) -> None:
    """Send the next chunk of a week's digests. Safe to repeat: each is claimed, and remembers that it was sent."""
    digests.send_chunk(date.fromisoformat(week))


@shared_task(ignore_result=True)
def check_unsent_digests() -> None:
    """Queue again digests that were left behind. Safe to repeat: so is each of them."""
    for week, people in Digest.objects.due_by_week():
        queue_digests(week, min(people, SWEPT_DIGESTS), expires=SWEPT_DIGESTS_EXPIRE)


@shared_task(bind=True, soft_time_limit=480, time_limit=600)
def import_products(self: Task, *, import_id: str) -> None:
    """Take in a file of products. Safe to repeat: it goes on after the last chunk that was committed."""
    product_import = ProductImport.objects.get(pk=import_id)
    if product_import.mark_running(self.request.id) and import_services.run_import(product_import, self.request.id):
        send_notification_email.delay(user_id=product_import.requested_by_id)


@shared_task(bind=True, soft_time_limit=50, time_limit=60, ignore_result=True)
def handle_import_failure(self: Task, *, import_id: str) -> None:
    """Tell who asked for it that an import has failed. Safe to repeat: only who ends the row tells."""
    product_import = ProductImport.objects.get(pk=import_id)
    # The parent is the task that has failed; another one may go on with the import by now.
    if import_services.fail_import(product_import, self.request.parent_id):
        send_notification_email.delay(user_id=product_import.requested_by_id)


def import_message(import_id: str) -> dict[str, Any]:
    """Return what `apply_async` of `import_products` needs, the callback for its failure included."""
    # Immutable: Celery would otherwise put the failed task's id in front of the arguments.
    return {"kwargs": {"import_id": import_id}, "link_error": handle_import_failure.si(import_id=import_id)}


@shared_task(ignore_result=True)
def check_unfinished_imports() -> None:
    """Queue again what was left behind, and do what a lost callback did not. Safe to repeat: so is each import."""
    for row in ProductImport.objects.left_behind().order_by("due_at")[:100]:
        if row.attempts < MAX_IMPORT_ATTEMPTS:
            import_products.apply_async(**import_message(str(row.pk)))
        elif import_services.fail_import(row, row.claimed_by):
            send_notification_email.delay(user_id=row.requested_by_id)


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_events() -> None:
    """Delete old noise of time lines, old digests and old runs of the sync. Safe to repeat: what is gone is gone."""
    digests_before = week_of(timezone.now() - DIGESTS_KEPT)
    with going_on_next_night("events"):
        delete_in_chunks(OrderEvent.objects.noise_before(timezone.now() - NOISE_KEPT).order_by("created_at"))
        delete_in_chunks(Digest.objects.mail_ended().filter(week__lt=digests_before).order_by("week", "person_id"))
        # A run's differences first, since they name it.
        delete_in_chunks(InventoryDifference.objects.filter(sync__in=InventorySync.objects.old()).order_by("sync_id"))
        delete_in_chunks(InventorySync.objects.old().order_by("pk"))


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_files() -> None:
    """Remove old imports, and files of imports and pictures that no row names. Safe to repeat: what is gone is gone."""
    with going_on_next_night("files"):
        import_services.remove_old_imports()
        import_services.remove_orphaned_files()
        thumbnails.remove_orphaned_pictures()
