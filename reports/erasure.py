"""Deleting an account: refused while money is in flight, immediate for the person, completed by a task.

The request's transaction anonymises the person's row and writes an `Erasure`. A task does what is slow or outside the
database. It may run any number of times, and deletes the `Erasure` last.
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
from myproject import texts
from myproject.storage.files import files_in
from orders.emails import confirmation
from orders.models import Basket, Digest, Order, OrderEvent
from orders.models import Status as OrderStatus

from . import packs
from .models import OPEN, Days, Kind, Pack, PackStatus, Report, ReportSchedule, Status, private_files

log = logging.getLogger(__name__)

# A file exists, or one is being written from data that was read earlier.
WRITTEN = [Status.RUNNING, Status.READY]
BUNDLED = [PackStatus.BUNDLING, PackStatus.READY]


class Unsettled(Exception):
    """The account cannot be deleted yet; the message says why."""

    def __init__(self, obstacles: list[str]) -> None:
        super().__init__(" ".join(obstacles))
        self.obstacles = obstacles


class Changed(Exception):
    """What the page said of the account is no longer so."""


@transaction.atomic
def close_account(person: User) -> bool:
    """Anonymise the person and log them out everywhere, in one transaction; False if that was done before.

    Raises `Unsettled` while an order is open or money is in flight.
    """
    hold(person)
    if found := obstacles(person):
        raise Unsettled(found)
    return accounts.anonymise(person)


@transaction.atomic
def close_own_account(person: User, seen: str) -> bool:
    """Close the account if `seen` still describes it. Raises `Changed` or `Unsettled`."""
    # Sent twice, it was closed by the same page.
    if hold(person).is_active and seen != shown(person):
        raise Changed("Nothing was deleted, since what this page says of your account has changed. Please look again.")
    return close_account(person)


def hold(person: User) -> User:
    """Lock the person until the transaction ends, which serialises this with their checkout."""
    accounts.hold_administrators()
    return User.objects.select_for_update().get(pk=person.pk)


def shown(person: User) -> str:
    """Describe the account and what it leaves behind, for the pages that ask before they delete it."""
    known = User.objects.get(pk=person.pk)
    # In the order of an index: who has no order would have all orders read, from the last one on.
    orders = Order.objects.of(known).order_by("-created_at", "-pk")
    files = Report.objects.of(known).order_by("-created_at", "pk")
    last = [f", the last of them {row}" if row else "" for row in (orders.first(), files.first())]
    counts = f"{orders.count()} orders stay{last[0]}; {files.count()} reports go{last[1]}"
    return f"{known.email}{f' ({texts.isolated(known.name)})' if known.name else ''}: {counts}"


def obstacles(person: User) -> list[str]:
    """Return the reasons why the account cannot be deleted yet."""
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
    """Remove the person's data, confirm what they bought, and send the farewell mail; False until all is done.

    Raises `TemporaryError` when the mail server does not answer, after everything else is done.
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
        mail.deliver(Order.objects.of(erasure.user).select_related("customer").claim_mail(), confirmation)
        mail.deliver(Erasure.objects.filter(pk=erasure.pk).claim_mail(), emails.farewell)
    finally:
        # Also while the mail server is unavailable: a last mail must not keep the address forever.
        is_over = finish(erasure)
    return is_over


@transaction.atomic
def finish(erasure: Erasure) -> bool:
    """Forget the address once no mail to it is owed any more, or was for too long; False until then."""
    orders = Order.objects.of(erasure.user)
    if orders.unsent().exists() and not erasure.is_given_up:
        return False
    if not accounts.finish(erasure):
        return False
    orders.update(mail_due_at=None, mail_error="")
    return True


def forget_orders(erasure: Erasure) -> None:
    """Remove the person's name from timelines; sales and payments stay."""
    orders = Order.objects.of(erasure.user)
    # Placed by a request that was running when the account was deleted.
    orders.filter(status=OrderStatus.PENDING).move(OrderStatus.CANCELLED, "The account was deleted.")
    # A mail server's answer may quote the address.
    orders.update(mail_error="")
    names = filter(None, (erasure.name, erasure.email))
    OrderEvent.objects.rename(erasure.user_id, names, erasure.user.alias)


def remove_reports(person: User) -> None:
    """Remove reports by and about the person with all files, including unfinished ones of killed workers."""
    reports = Report.objects.naming(person)
    for report in reports.filter(status__in=OPEN):
        # From here on no worker can publish it.
        report.mark_cancelled()
    ids = {str(pk) for pk in reports.values_list("pk", flat=True)}
    # Delete the file first: after a crash, the row still names it.
    for name in files_in("reports", private_files()) if ids else []:
        if PurePath(name).name[:36] in ids:
            private_files().delete(f"reports/{name}")
    reports.filter(pk__in=ids).delete()
    log.info("Account %s: %s reports removed", person.pk, len(ids))


def leave_schedules(person: User) -> None:
    """Remove the person from all schedules and from the reports that these have made."""
    ReportSchedule.recipients.through.objects.filter(user=person).delete()
    Report.readers.through.objects.filter(user=person).delete()


def leave_lists(person: User) -> bool:
    """Remove files that list the person among the customers of some days; False while one is being written.

    This includes files that were started after the name was removed: they can be made again.
    """
    written = Report.objects.filter(Q(status__in=WRITTEN) | Q(pack__status__in=BUNDLED), kind=Kind.SALES_BY_CUSTOMER)
    lists = [report for report in written if is_listed(person, report.days)]
    remove_files(lists)
    # Checked afterwards: a bundling that starts from here on finds no such file.
    bundles = Pack.objects.filter(members__in=lists, status__in=BUNDLED)
    remove_files(bundles)
    # It may have read the name already; it is removed when it is ready.
    rows: list[Report | Pack] = [*lists, *bundles]
    return not any(row.status in (Status.RUNNING, PackStatus.BUNDLING) for row in rows)


def is_listed(person: User, days: Days) -> bool:
    """Return whether the person bought anything in these days or in as many before, refunded or not."""
    orders = Order.objects.of(person).completed_since(days.before.start)
    return orders.filter(completed_at__lt=days.end).exists()


def remove_files(rows: Iterable[Report | Pack]) -> None:
    for row in rows:
        if row.is_ready:
            # Delete the file first: after a crash, the row still names it.
            private_files().delete(str(row.file.name))
            row.mark_expired()
