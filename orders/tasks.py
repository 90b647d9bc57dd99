import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from datetime import date, timedelta
from functools import partial
from math import ceil
from typing import Any

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from accounts.tasks import send_notification_email
from durable import mail
from durable.errors import PermanentError, TemporaryError
from durable.sweeps import Sweep, sweep
from durable.task import Task, queue_many, survive
from myproject.storage.clean_ups import CLEAR_LIMITS, delete_in_chunks, going_on_next_night

from . import digests, emails, import_services, inventory, services, thumbnails
from .models import (
    PICTURE_LEASE,
    Basket,
    BasketLine,
    Digest,
    InventoryDifference,
    InventorySync,
    Kind,
    Order,
    OrderEvent,
    Payment,
    Product,
    ProductImport,
    ProductImportQuerySet,
    SyncStatus,
    week_of,
)
from .schedules import SCHEDULES

log = logging.getLogger(__name__)

# Orders per message: batches of a hundred drain a backlog far faster than single orders.
ORDERS_AT_ONCE = 100
# New orders that share a message in a backlog: half of what it takes along, so that every second one may be lost.
ORDERS_PER_MESSAGE = 50
NOISE_KEPT = timedelta(days=365)
DIGESTS_KEPT = timedelta(weeks=10)
LEASE_SECONDS = settings.ORDER_LEASE.total_seconds()
INVENTORY_LEASE_SECONDS = settings.INVENTORY_LEASE.total_seconds()


class OrderTask(Task):
    """Shows on the order's timeline why its task is retried."""

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        # Errors of the provider are on the timeline already; the database may have failed.
        if not isinstance(exc, TemporaryError):
            with suppress(DatabaseError):
                # Only for orders that this task still holds: another task may have ended them.
                held = Order.objects.claimed_in(task_id).values_list("pk", flat=True)
                OrderEvent.objects.record(held, Kind.INTERRUPTED, detail=repr(exc))


# The order's row shows that it has started; the result is needed only at the end.
@shared_task(
    base=OrderTask,
    bind=True,
    soft_time_limit=LEASE_SECONDS * 0.8,
    time_limit=LEASE_SECONDS,
    track_started=False,
)
def process_order(self: Task, *, order_id: int) -> dict[str, Any]:
    """Process an order and other waiting ones. Safe to repeat: each step resumes from its row, a charge has its key."""
    claimed = services.claim_orders(order_id, limit=ORDERS_AT_ONCE)
    if not claimed:
        # Processed in another batch: a result would have no reader and cost a commit.
        self.request.ignore_result = True
        return {"claimed": 0, "completed": 0}
    processed = services.process_orders(claimed)
    queue_confirmations(processed.completed)
    queue_waiting_order()
    if processed.unanswered:
        raise processed.unanswered[0]
    return {"claimed": len(claimed), "completed": len(processed.completed)}


def queue_new_order(order: Order) -> None:
    """Queue an order that has just been placed, after the commit, unless the message of another takes it along."""

    def publish() -> None:
        if not Order.objects.takes_along(order, every=ORDERS_PER_MESSAGE):
            process_order.delay_on_commit(order_id=order.pk)

    transaction.on_commit(publish, robust=True)


def queue_waiting_order() -> None:
    """Queue one of the orders that have come meanwhile without a message of their own."""
    for pk in Order.objects.for_machine().unclaimed().order_by("due_at").values_list("pk", flat=True)[:1]:
        survive(partial(process_order.delay, order_id=pk), process_order.name)


def queue_confirmations(order_ids: Sequence[int]) -> None:
    """Queue the mails of these orders, which a message sends together."""
    queue_many(send_order_confirmation, [{"order_id": pk} for pk in order_ids[:: mail.BATCH]])


@shared_task(base=OrderTask, soft_time_limit=LEASE_SECONDS * 0.8, time_limit=LEASE_SECONDS)
def refund_order(*, order_id: int) -> dict[str, Any]:
    """Send a requested refund. Safe to repeat: the refund has its key, the row ends once."""
    return {"refunded": services.refund(order_id)}


@shared_task(soft_time_limit=50, time_limit=60, ignore_result=True)
def send_order_confirmation(*, order_id: int) -> None:
    """Confirm a completed order by mail. Safe to repeat: the row is claimed, and remembers that it was sent."""
    mail.deliver(Order.objects.select_related("customer").claim_mail(order_id), emails.confirmation)


@shared_task(soft_time_limit=50, time_limit=PICTURE_LEASE.total_seconds(), ignore_result=True)
def make_thumbnails(*, product_id: int) -> None:
    """Make the thumbnails of a product's picture. Safe to repeat: the files are the same, the newest picture wins."""
    thumbnails.make_thumbnails(product_id)


@sweep(SCHEDULES["Check pending pictures"])
def check_pending_pictures() -> list[Sweep]:
    """Queue overdue pictures again; fail those whose attempts are used up. Safe to repeat: so is each picture."""
    give_up = Product.objects.give_up_pictures
    return [Sweep(Product.objects.due().order_by("picture_due_at"), make_thumbnails, "product_id", give_up=give_up)]


@sweep(SCHEDULES["Check pending orders"])
def check_pending_orders() -> list[Sweep]:
    """Queue overdue orders, refunds and mails again; flag old ones for a person. Safe to repeat: so is each of them."""
    orders = Order.objects.due().for_machine().order_by("due_at")
    requeued = Order.objects.due().requeued().order_by("due_at")
    refunds = Payment.objects.due().select_related("order").order_by("refund_due_at")
    confirmations = Order.objects.mail_due().order_by("mail_due_at")
    syncs = InventorySync.objects.due()
    return [
        Sweep(orders, process_order, "order_id", limit=500, give_up=services.give_up_old_orders, context=about_order),
        Sweep(requeued, process_order, "order_id", context=about_order),
        Sweep(refunds, refund_order, "order_id", "order_id", limit=500, context=about_refund),
        Sweep(confirmations, send_order_confirmation, "order_id", limit=10, at_once=mail.BATCH, context=about_order),
        Sweep(syncs, sync_inventory, "sync_id", give_up=InventorySync.objects.give_up),
    ]


def about_order(order: Order) -> AbstractContextManager[Any]:
    """Bind the order's reference to the log and the headers of a swept message."""
    return bound_contextvars(order=order.reference)


def about_refund(payment: Payment) -> AbstractContextManager[Any]:
    return about_order(payment.order)


class SyncTask(Task):
    """Ends the run when its task has failed permanently."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        super().on_failure(exc, task_id, args, kwargs, einfo)
        is_known = isinstance(exc, (TemporaryError, PermanentError))
        reason = str(exc) if is_known else f"It could not be finished ({type(exc).__name__})."
        InventorySync.objects.claimed_in(task_id).close(SyncStatus.FAILED, error=reason)


@shared_task(
    base=SyncTask,
    ignore_result=True,
    soft_time_limit=INVENTORY_LEASE_SECONDS * 0.8,
    time_limit=INVENTORY_LEASE_SECONDS,
)
def sync_inventory(*, sync_id: int | None = None) -> None:
    """Apply the warehouse's changes. Safe to repeat: a run is claimed, a level is applied once."""
    if not settings.WAREHOUSE_URL:
        log.info("There is no warehouse: WAREHOUSE_URL is empty")
        return
    named = InventorySync.objects.filter(pk=sync_id or InventorySync.objects.open_one().pk)
    for run in InventorySync.objects.claim(first=named, status=SyncStatus.RUNNING):
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


@sweep(SCHEDULES["Check unsent digests"])
def check_unsent_digests() -> list[Sweep]:
    """Queue overdue digests again. Safe to repeat: so is each digest."""
    due = Digest.objects.mail_due().order_by("week", "pk")
    return [Sweep(due, send_digest_emails, "week", "week", limit=50, at_once=digests.CHUNK)]


@shared_task(soft_time_limit=480, time_limit=600)
def import_products(*, import_id: str) -> None:
    """Import a file of products. Safe to repeat: it continues after the last committed chunk."""
    if ended := import_services.run_import(import_id):
        send_notification_email.delay(user_id=ended.requested_by_id)


@shared_task(bind=True, soft_time_limit=50, time_limit=60, ignore_result=True)
def handle_import_failure(self: Task, *, import_id: str) -> None:
    """Notify the owner of a failed import. Safe to repeat: only the call that ends the row notifies."""
    # The parent is the failed task; another one may have taken the import over by now.
    fail_imports(ProductImport.objects.filter(pk=import_id).claimed_in(self.request.parent_id))


def fail_imports(rows: ProductImportQuerySet) -> None:
    for failed in import_services.fail_imports(rows):
        send_notification_email.delay(user_id=failed.requested_by_id)


def import_options(import_id: object) -> dict[str, Any]:
    """Return the options for `apply_async` of `import_products`: the callback for its failure."""
    # Immutable: Celery would otherwise put the failed task's id in front of the arguments.
    return {"link_error": handle_import_failure.si(import_id=str(import_id))}


@sweep(SCHEDULES["Check unfinished imports"])
def check_unfinished_imports() -> list[Sweep]:
    """Queue overdue imports again; fail those whose callback was lost. Safe to repeat: so is each import."""
    due = ProductImport.objects.due().order_by("due_at")
    give_up = partial(fail_imports, ProductImport.objects.exhausted())
    return [Sweep(due, import_products, "import_id", options=import_options, give_up=give_up)]


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_events() -> None:
    """Delete old timeline noise, digests, sync runs and baskets. Safe to repeat: deletes are idempotent."""
    digests_before = week_of(timezone.now() - DIGESTS_KEPT)
    with going_on_next_night("events"):
        delete_in_chunks(OrderEvent.objects.noise_before(timezone.now() - NOISE_KEPT).order_by("kind", "created_at"))
        delete_in_chunks(Digest.objects.mail_ended().filter(week__lt=digests_before).order_by("week", "person_id"))
        # A run's differences first, since they name it.
        delete_in_chunks(InventoryDifference.objects.filter(sync__in=InventorySync.objects.old()).order_by("sync_id"))
        delete_in_chunks(InventorySync.objects.old().order_by("pk"))
        abandoned = Basket.objects.abandoned_before(timezone.now() - timedelta(seconds=settings.SESSION_COOKIE_AGE))
        delete_in_chunks(BasketLine.objects.filter(basket__in=abandoned).order_by("basket_id"))
        delete_in_chunks(abandoned.order_by("used_at"))


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_files() -> None:
    """Remove old imports and files that no row names. Safe to repeat: deletes are idempotent."""
    with going_on_next_night("files"):
        import_services.remove_old_imports()
        import_services.remove_orphaned_files()
        thumbnails.remove_orphaned_pictures()
