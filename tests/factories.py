"""Rows for tests: what a test does not care about has a default."""

import json
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from itertools import count
from typing import Any

from allauth.account.models import EmailAddress
from celery._state import _task_stack
from django.contrib.auth.hashers import make_password
from django.core.files.base import ContentFile
from django.db import transaction
from django.utils import timezone

from accounts import services as people
from accounts.models import AccountMail, CrmContact, CrmStatus, Erasure, Notification, User
from myproject.alerting.models import Alert, DeadLetter
from myproject.celery import debug_task
from orders import services
from orders.models import OPEN, Card, Digest, Order, Product, ProductImport, Status, StockSeen, week_of
from reports import packs, planning
from reports.models import Format, Kind, Pack, Report, ReportSchedule
from reports.models import Status as ReportStatus

PASSWORD = "correct-horse-battery"
_numbers = count(1)


def make_user(password: str = PASSWORD, **fields: Any) -> User:
    number = next(_numbers)
    defaults = {"email": f"person{number}@example.com", "name": f"Person {number}"}
    return User.objects.create(**defaults | {"password": hashed(password)} | fields)


def verified(person: User) -> User:
    EmailAddress.objects.create(user=person, email=person.email, verified=True, primary=True)
    return person


@cache
def hashed(password: str) -> str:
    """Hash once: it is slow by intention, and nearly every test has a person."""
    return make_password(password)


def make_product(**fields: Any) -> Product:
    number = next(_numbers)
    defaults = {"sku": f"SKU-{number}", "name": f"Lamp {number}", "category": "Lighting"}
    return Product.objects.create(**defaults | {"price": Decimal("12.50"), "stock": 10} | fields)


def place_order(
    customer: User | None = None, product: Product | None = None, quantity: int = 1, card: str = Card.VISA
) -> Order:
    """Place an order as the checkout page does, without queueing it."""
    return services.place_order(
        customer or make_user(), {product or make_product(): quantity}, card=card, token=uuid.uuid4()
    )


@contextmanager
def running(task_id: str) -> Iterator[None]:
    """Be within a Celery task of that id."""
    debug_task.push_request(id=task_id)
    _task_stack.push(debug_task)
    try:
        yield
    finally:
        _task_stack.pop()
        debug_task.pop_request()


def claim(row: Any, task_id: str = "task", **fields: Any) -> Any:
    """Claim the row as that task does; return it as its holder has it, None when another one holds it."""
    rows = type(row)._default_manager.all()
    with running(task_id):
        claimed = rows.claim(first=rows.filter(pk=row.pk), **fields)
    return claimed[0] if claimed else None


def end(report: Report, reason: str) -> None:
    """End the report as failed, even if a worker holds it."""
    Report.objects.filter(pk=report.pk).close(ReportStatus.FAILED, error=reason)


def claim_orders(order: Order, *, limit: int, task_id: str) -> list[int]:
    """Claim the order and others as that task does; return the keys of those that it won."""
    with running(task_id), transaction.atomic():
        return [claimed.pk for claimed in Order.objects.claim_with_others(order.pk, limit)]


def end_lease(order: Order) -> None:
    """Let the lease of the order end now, as if its worker had died long ago."""
    Order.objects.filter(pk=order.pk).update(due_at=timezone.now())


def put(order: Order, status: Status, completed_at: datetime | None = None) -> Order:
    """Put the order into the status without asking the rules, and return it as it stands then."""
    due_at = timezone.now() if status in OPEN else None
    Order.objects.filter(pk=order.pk).update(
        status=status, due_at=due_at, completed_at=completed_at or timezone.now(), claimed_by=""
    )
    return Order.objects.get(pk=order.pk)


def make_report(person: User | None = None, **fields: Any) -> Report:
    requested_by = person or make_user(is_staff=True)
    defaults = {"start": "2026-01-01", "end": "2026-01-31", "due_at": timezone.now()}
    report = Report.objects.create(requested_by=requested_by, **defaults | fields)
    report.refresh_from_db()
    return report


def make_schedule(*recipients: User, **fields: Any) -> ReportSchedule:
    """Schedule sales of last week, for Mondays 08:00 in Berlin unless `when` says otherwise, as somebody else did."""
    at_eight = {"minute": "0", "hour": "8", "day_of_week": "1", "day_of_month": "*", "month_of_year": "*"}
    when = at_eight | {"timezone": "Europe/Berlin"} | fields.pop("when", {})
    schedule = ReportSchedule(**{"name": "Monday sales", "made_by": make_user(is_staff=True)} | fields)
    planning.save(schedule, recipients or [make_user(is_staff=True, is_superuser=True)], when)
    return ReportSchedule.objects.select_related("periodic_task__crontab").get(pk=schedule.pk)


def make_pack(person: User | None = None, month: date = date(2026, 10, 1)) -> Pack:
    return packs.ask_for_pack(person or make_user(is_staff=True, is_superuser=True), month)


def make_import(data: str | bytes = "", **fields: Any) -> ProductImport:
    """An upload of that file, whose time has come."""
    data = data.encode() if isinstance(data, str) else data
    defaults = {
        "requested_by": fields.get("requested_by") or make_user(is_staff=True),
        "token": uuid.uuid4(),
        "file": ContentFile(data, name="products.csv"),
        "original_name": "products.csv",
        "size": len(data),
        "due_at": timezone.now(),
    }
    product_import = ProductImport.objects.create(**defaults | fields)
    StockSeen.objects.note(product_import)
    return product_import


def make_export(person: User | None = None, **fields: Any) -> Report:
    return make_report(
        person or make_user(),
        **{"kind": Kind.PERSONAL_DATA, "format": Format.JSON, "start": None, "end": None} | fields,
    )


def make_erasure(person: User | None = None) -> Erasure:
    """Delete an account, as far as the click goes."""
    person = person or make_user()
    people.anonymise(person)
    return Erasure.objects.get(user=person)


def make_mail(**fields: Any) -> AccountMail:
    defaults = {"to": "alice@example.com", "subject": "Confirm", "text": "A link", "html": "<p>A link</p>"}
    return AccountMail.objects.create(**defaults | {"mail_due_at": timezone.now()} | fields)


def make_notification(person: User | None = None, **fields: Any) -> Notification:
    defaults = {"subject": "Your report is ready", "message": "It took a while."}
    return people.notify(person or make_user(), **defaults | fields)


def make_digest(person: User | None = None) -> Digest:
    return Digest.objects.create(person=person or make_user(), week=week_of(timezone.now()), mail_due_at=timezone.now())


def make_contact(person: User | None = None, **fields: Any) -> CrmContact:
    """Make the contact of a person, of which the CRM was never told unless `status` says otherwise."""
    user = person or make_user()
    due_at = timezone.now() if fields.get("status", CrmStatus.WAITING) == CrmStatus.WAITING else None
    return CrmContact.objects.create(external_id=user.pk, user=user, **{"due_at": due_at} | fields)


def make_letter() -> DeadLetter:
    """Bury a message of which no worker knew the task."""
    raw: dict[str, Any] = {"body": b64encode(b"[[], {}, {}]").decode(), "content-type": "application/json"}
    raw |= {"content-encoding": "utf-8", "headers": {"task": "gone", "id": "1"}, "properties": {}}
    whole = json.dumps(raw).encode()
    kept = {"kind": "unknown task", "queue": "default", "reason": "unknown", "size": len(whole)}
    return DeadLetter.objects.create(raw=whole, **kept)


def make_alert(**fields: Any) -> Alert:
    """Record an alert as it happens for the first time, or once more."""
    return Alert.objects.record(**{"cause": "Lamp", "subject": "A lamp is out", "message": "The red one."} | fields)
