"""Each field about a person is in their export and is erased with their account, or it says here why it is not."""

import datetime
import re
import uuid
from io import BytesIO
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.apps import apps
from django.db import IntegrityError, models, transaction
from django.db.models import Field

from accounts.models import ApiToken, CrmContact, User
from orders.models import Basket, Status
from reports import erasure, personal, tasks
from tests.factories import (
    make_contact,
    make_digest,
    make_mail,
    make_notification,
    make_pack,
    make_product,
    make_report,
    make_schedule,
    make_user,
    place_order,
    put,
)

pytestmark = pytest.mark.django_db

# No words about anybody: who works on the row, and until when.
LEASE = re.compile(r"\w*(due_at|claimed_by|attempts)")

# Models, or single fields of them, with the reason.
NOT_EXPORTED = {
    "a secret, or a link that works once": """
        accounts.User.password accounts.AccountMail.text accounts.AccountMail.html account.EmailConfirmation
        accounts.ApiToken.digest mfa.Authenticator orders.Order.token orders.Payment.key orders.Payment.refund_key""",
    "what somebody may do here, not who they are": """
        accounts.User.is_superuser accounts.User.is_staff accounts.User.is_active account.EmailAddress.primary""",
    "an account that is deleted cannot ask for its data": "accounts.User.deleted_at accounts.Erasure",
    "the cookie of an anonymous visitor": "orders.Basket.visitor",
    "what the mail server said": """
        accounts.User.mail_error accounts.AccountMail.mail_error accounts.Notification.mail_error
        orders.Digest.mail_error orders.Order.mail_error""",
    "the state of the CRM's copy of the account": "accounts.CrmContact",
    "what staff did, with products": "admin.LogEntry orders.ProductImport orders.RejectedRow orders.StockSeen",
    "notes of our staff and of the machine": """
        orders.Order.opened_at orders.Order.flagged_at orders.Order.flag_reason orders.Digest.skip_reason
        orders.OrderEvent.detail orders.OrderEvent.task_id orders.OrderEvent.worker""",
    "how the provider names what the export shows as a payment": """
        orders.Payment.provider_id orders.Payment.refund_id orders.Payment.refund_wanted_at""",
    "how a file was made": """
        reports.Report.format reports.Report.started_at reports.Report.rows_done reports.Report.rows_total
        reports.Report.file reports.Report.row_count reports.Report.size reports.Report.preview reports.Report.error
        reports.Report.wants_mail reports.Report.slot reports.Report.finished_at reports.Pack.file reports.Pack.size
        reports.Pack.missing_count reports.Pack.error reports.Pack.finished_at""",
    "settings of a report that several people read": """
        reports.ReportSchedule.kind reports.ReportSchedule.format reports.ReportSchedule.period
        reports.ReportSchedule.created_at""",
}
NOT_ERASED = {
    "when and how an account was used, without a name": """
        accounts.User.date_joined accounts.User.mail_sent_at accounts.User.deleted_at accounts.User.is_active""",
    "the books: what was sold, paid and given back": """
        orders.Order.mail_sent_at orders.Order.reference orders.Order.token orders.Order.status orders.Order.reason
        orders.Order.total orders.Order.currency orders.Order.created_at orders.Order.completed_at
        orders.Order.opened_at orders.Order.flagged_at orders.Order.flag_reason orders.OrderItem orders.Payment""",
    "the books, too; names in a detail are replaced, see test_erasure": "orders.OrderEvent",
    "what staff did, with products; names are replaced, see test_erasure": """
        admin.LogEntry orders.ProductImport orders.RejectedRow orders.StockSeen""",
    "the proof that the CRM was told to forget": "accounts.CrmContact",
    "it goes when the last mail is sent": "accounts.Erasure",
    "a report that several people read": "reports.ReportSchedule",
    "no row: links are signed, not stored": "account.EmailConfirmation",
}


def about_people() -> list[type[models.Model]]:
    """Return `User` and all models that belong to a person, directly or through another."""
    found: set[type[models.Model]] = {User}
    while more := {model for model in apps.get_models() if parents(model) & found} - found:
        found |= more
    return sorted(found, key=lambda model: model._meta.label)


def parents(model: type[models.Model]) -> set[Any]:
    return {field.related_model for field in model._meta.concrete_fields if field.is_relation}


def fields_of(model: type[models.Model]) -> list[Field]:
    fields = model._meta.concrete_fields
    return [f for f in fields if not (f.is_relation or f.primary_key or LEASE.fullmatch(f.name))]


def asked(exceptions: dict[str, str]) -> list[Field]:
    """Return the fields about a person that are in no list of exceptions."""
    excepted = {name for names in exceptions.values() for name in names.split()}
    models_asked = [model for model in about_people() if model._meta.label not in excepted]
    return [field for model in models_asked for field in fields_of(model) if name_of(field) not in excepted]


def name_of(field: Field) -> str:
    return f"{field.model._meta.label}.{field.name}"


def live() -> User:
    """Make a row of each model for one person."""
    person = make_user(name="Alice")
    # Else the person would be the only administrator, once `is_superuser` is changed.
    make_user(is_staff=True, is_superuser=True)
    EmailAddress.objects.create(user=person, email=person.email)
    Authenticator.objects.create(user=person, type=Authenticator.Type.TOTP, data={"secret": "x"})
    CrmContact.objects.all().delete()
    make_contact(person)
    make_mail(user=person, to=person.email)
    make_notification(person)
    make_digest(person)
    ApiToken.objects.make(person, "script")
    put(place_order(person), Status.COMPLETED)
    Basket.objects.hold(person=person).put(make_product(), 1)
    make_pack(person).members.all().delete()
    make_report(person, end="2026-03-31")
    make_schedule(person, made_by=person)
    return person


def another(field: Field, old: Any) -> Any:
    """Return another value than the one of the row."""
    if isinstance(field, models.BooleanField):
        return not old
    if isinstance(field, models.UUIDField):
        return uuid.uuid4()
    if isinstance(field, models.JSONField):
        return {"another": "value"}
    if isinstance(field, models.DateTimeField):
        return datetime.datetime(2001, 2, 3, tzinfo=datetime.UTC)
    if isinstance(field, models.DateField):
        return (old or datetime.date(2001, 2, 1)) + datetime.timedelta(days=31)
    if isinstance(field, models.IntegerField | models.DecimalField):
        return (old or 0) + 1
    return "zq@another.example"[: field.max_length]


def change(field: Field, person: User) -> models.QuerySet[Any]:
    """Give the field another value in the person's row; return this row as long as it has that value."""
    rows = field.model._default_manager.order_by("pk")
    row = rows.get(pk=person.pk) if field.model is User else rows.last()
    assert row is not None, f"live() makes no {field.model._meta.label}"
    old = getattr(row, field.attname)
    choices = [value for value, _ in field.flatchoices if value != old]
    # Of several statuses some are impossible, given the row's other columns.
    value = next((v for v in choices or [another(field, old)] if accepts(rows.filter(pk=row.pk), {field.name: v})), old)
    return rows.filter(pk=row.pk, **{field.name: value})


def accepts(row: models.QuerySet[Any], change: dict[str, Any]) -> bool:
    try:
        with transaction.atomic():
            return bool(row.update(**change))
    except IntegrityError:
        return False


def export(person: User) -> bytes:
    target = BytesIO()
    personal.write(User.objects.get(pk=person.pk), target, lambda rows: None)
    return target.getvalue()


def test_each_field_about_a_person_is_exported_or_says_why_not() -> None:
    person, forgotten = live(), []
    before = export(person)

    for field in asked(NOT_EXPORTED):
        with transaction.atomic():
            change(field, person)
            if export(person) == before:
                forgotten.append(name_of(field))
            transaction.set_rollback(True)

    assert not forgotten, f"{forgotten}: add them to reports/personal.py, or to NOT_EXPORTED with the reason"


def test_each_field_about_a_person_is_erased_or_says_why_not() -> None:
    person = live()
    written = {name_of(field): change(field, person) for field in asked(NOT_ERASED)}

    erasure.close_account(User.objects.get(pk=person.pk))
    tasks.erase_account.apply(kwargs={"user_id": person.pk})

    left = [name for name, row in written.items() if row.exists()]
    assert not left, (
        f"{left}: erase them in mark_deleted, accounts.services.forget or reports/erasure.py, or add the reason"
    )


@pytest.mark.parametrize("exceptions", [NOT_EXPORTED, NOT_ERASED], ids=["not exported", "not erased"])
def test_exceptions_name_what_exists(exceptions: dict[str, str]) -> None:
    there = {name for model in about_people() for name in (model._meta.label, *map(name_of, fields_of(model)))}

    assert {name for names in exceptions.values() for name in names.split()} - there == set()
