"""Deleting an account: refused while money is in flight, at once for the person, and to the end by a task.

The click's transaction takes the person out of their row and leaves an `Erasure`. What is slow, or not in the
database, is done from that row, however often; it goes last.
"""

import logging
from collections.abc import Iterable
from pathlib import PurePath

from django.db import transaction
from django.db.models import Q

from accounts import emails
from accounts import services as accounts
from accounts.models import Erasure, User
from durable import mail
from myproject.storage.files import files_in
from orders.models import Basket, Digest, Order, OrderEvent
from orders.models import Status as OrderStatus

from . import packs
from .models import OPEN, Days, Kind, Pack, PackStatus, Report, ReportSchedule, Status, private_files

log = logging.getLogger(__name__)

# There is a file, or there will be one with what was read before.
WRITTEN = [Status.RUNNING, Status.READY]
BUNDLED = [PackStatus.BUNDLING, PackStatus.READY]


class Unsettled(Exception):
    """Something has to end before the account can."""

    def __init__(self, obstacles: list[str]) -> None:
        super().__init__(" ".join(obstacles))
        self.obstacles = obstacles


def close_account(person: User) -> bool:
    """Anonymise the person and log them out everywhere, in one transaction; False when that was done before.

    Raises `Unsettled` where an order is open or money is in flight.
    """
    with transaction.atomic():
        accounts.hold_administrators()
        # Who places an order at this moment waits here, or we for them.
        User.objects.select_for_update().get(pk=person.pk)
        if found := obstacles(person):
            raise Unsettled(found)
        return accounts.anonymise(person)


def obstacles(person: User) -> list[str]:
    """Say what has to end before the account can."""
    orders = Order.objects.of(person).unsettled().order_by("created_at", "pk")[:20]
    found = [f"Order {order.reference} {_why(order)}." for order in orders]
    if accounts.is_last_administrator(person):
        found.append("You are the only administrator of the shop.")
    return found


def _why(order: Order) -> str:
    if order.is_open:
        return f"is still {order.get_status_display().lower()}"
    return "is being looked into by our staff" if order.flagged_at else "is being refunded"


def erase(erasure: Erasure) -> bool:
    """Remove what the person has left behind, and say farewell; False while something of it is still to be done.

    Raises `TemporaryError` when the mail server does not answer: all else is done then.
    """
    if erasure.cleared_at is None:
        accounts.forget(erasure)
        forget_orders(erasure)
        Digest.objects.filter(person=erasure.user).delete()
        Basket.objects.filter(person=erasure.user).delete()
        leave_schedules(erasure.user)
        remove_reports(erasure.user)
        packs.remove_packs(erasure.user)
        if not leave_lists(erasure.user):
            return False
        erasure.mark_cleared()
    try:
        mail.deliver(Erasure.objects.filter(pk=erasure.pk).claim_mail(), emails.farewell)
    finally:
        # Also while the mail server is away: the address is not kept for ever for a last mail.
        is_over = accounts.finish(erasure)
    return is_over


def forget_orders(erasure: Erasure) -> None:
    """Take the person's name out of the time lines, and owe no confirmation; what was sold and paid stays."""
    orders = Order.objects.of(erasure.user)
    # Placed by a click that was under way when the account was deleted.
    orders.filter(status=OrderStatus.PENDING).move(OrderStatus.CANCELLED, "The account was deleted.")
    # What a mail server answered names the address, too.
    orders.update(mail_due_at=None, mail_error="")
    names = filter(None, (erasure.name, erasure.email))
    OrderEvent.objects.rename(erasure.user_id, names, erasure.user.alias)


def remove_reports(person: User) -> None:
    """Remove the reports by and about the person with all files, also those that a killed worker left unfinished."""
    reports = Report.objects.naming(person)
    for report in reports.filter(status__in=OPEN):
        # Nobody can publish it from here on.
        report.mark_cancelled()
    ids = {str(pk) for pk in reports.values_list("pk", flat=True)}
    # The file first: a row that is left finds it again.
    for name in files_in("reports", private_files()) if ids else []:
        if PurePath(name).name[:36] in ids:
            private_files().delete(f"reports/{name}")
    reports.filter(pk__in=ids).delete()
    log.info("Account %s: %s reports removed", person.pk, len(ids))


def leave_schedules(person: User) -> None:
    """Take the person off all schedules, and out of what these have made."""
    ReportSchedule.recipients.through.objects.filter(user=person).delete()
    Report.readers.through.objects.filter(user=person).delete()


def leave_lists(person: User) -> bool:
    """Remove the files that list the person among the customers of some days; False while one is being written.

    Also files that were begun after the name was gone: to tell them apart is not worth it, they can be made again.
    """
    written = Report.objects.filter(Q(status__in=WRITTEN) | Q(pack__status__in=BUNDLED), kind=Kind.SALES_BY_CUSTOMER)
    lists = [report for report in written if is_listed(person, report.days)]
    remove_files(lists)
    # Looked for afterwards: whoever begins to bundle from here on finds no such file.
    bundles = Pack.objects.filter(members__in=lists, status__in=BUNDLED)
    remove_files(bundles)
    # It has read the name, perhaps, and will be removed when it is ready.
    rows: list[Report | Pack] = [*lists, *bundles]
    return not any(row.status in (Status.RUNNING, PackStatus.BUNDLING) for row in rows)


def is_listed(person: User, days: Days) -> bool:
    """Tell whether the person bought anything in these days or in as many before; also what was refunded since."""
    orders = Order.objects.of(person).completed_since(days.before.start)
    return orders.filter(completed_at__lt=days.end).exists()


def remove_files(rows: Iterable[Report | Pack]) -> None:
    for row in rows:
        if row.is_ready:
            # The file first: a row that is left finds it again.
            private_files().delete(str(row.file.name))
            row.mark_expired()
