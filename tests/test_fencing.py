"""A worker that was frozen, taken over and thawed writes nothing: each leased row, at each write of its holder.

A model that has a lease and no cases here fails `test_each_leased_model_has_its_cases`.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from django.apps import apps
from django.db import models
from django.utils import timezone

from accounts.models import AccountMail, CrmContact, Erasure, Notification, User
from durable import mail
from durable.errors import PermanentError, TemporaryError
from durable.leases import HasLease, LeaseLost
from durable.mail import MAIL, OwesMail
from myproject.alerting.models import Alert
from orders import digests, import_services, imports, inventory, payments, services, thumbnails, warehouse
from orders.models import (
    Digest,
    InventorySync,
    Order,
    Payment,
    PictureStatus,
    Product,
    ProductImport,
    Skip,
    SyncStatus,
)
from orders.models import Status as OrderStatus
from reports import outcomes, packs
from reports import services as reports
from reports.models import Pack, Report
from reports.models import Status as ReportStatus
from tests import factories
from tests.factories import claim, make_product, make_user, place_order, put

pytestmark = pytest.mark.django_db

OURS = ("accounts", "orders", "reports", "myproject")
Write = Callable[[Any], object]
PAGE = warehouse.Page("etag", 1, {"A-1": 99, "B-1": 1}, {"C-1": "It told -1."}, "")
CSV = "name,sku,price,stock,category\nLamp,A-1,1,1,X\nBad,C-1,-1,1,X\n"


class Cases(NamedTuple):
    """How to make a row that owes work, and each write of its holder."""

    make: Callable[[], HasLease]
    writes: dict[str, Write]


def processing_order() -> Order:
    order = place_order()
    services.reserve([order.pk])
    return order


def owing_order() -> Order:
    order = put(place_order(), OrderStatus.COMPLETED)
    Order.objects.filter(pk=order.pk).update(mail_due_at=timezone.now())
    return order


def settle(outcome: payments.Outcome) -> Write:
    return lambda row: services.settle({row.payments.get(): outcome}, Order.objects.held([row]))


def wanted_refund() -> Payment:
    order = put(place_order(), OrderStatus.COMPLETED)
    order.payments.update(status="succeeded", provider_id="pi_1")
    services.want_refund(order, "staff")
    return order.payments.get()


def refund(outcome: Exception) -> Write:
    def write(row: Payment) -> None:
        claims = patch.object(type(Payment.objects.all()), "claim", return_value=[row])
        with claims, patch.object(payments, "refund", side_effect=outcome), suppress(TemporaryError):
            services.refund(row.order_id)

    return write


def pending_picture() -> Product:
    picture = {"picture_status": PictureStatus.PENDING, "picture": "pictures/a.png", "picture_due_at": timezone.now()}
    return make_product(sku="A-1", thumbnails="0" * 32, **picture)


def sync() -> InventorySync:
    make_product(sku="A-1", warehouse_units=1)
    return InventorySync.objects.open_one()


def complete_pack() -> Pack:
    pack = factories.make_pack()
    pack.members.all().close(ReportStatus.FAILED)
    return pack


def due_alert() -> Alert:
    alert = factories.make_alert()
    Alert.objects.update(due_at=timezone.now())
    return alert


def give_back(row: OwesMail) -> None:
    with patch.object(mail, "connected", side_effect=mail.Disconnected("away")), suppress(mail.Disconnected):
        mail.deliver([row], lambda row: pytest.fail("It is not to be sent."))


MAILS: dict[str, Write] = {
    "put off": lambda row: row.put_off_mail("busy"),
    "failed": lambda row: row.mark_mail_failed("550"),
    "sent": lambda row: type(row)._default_manager.all().mark_mails_sent([row]),
    "given back": give_back,
}
CASES: dict[type[HasLease], Cases] = {
    Order: Cases(
        processing_order,
        {
            "charged": settle(payments.Charged("pi_1")),
            "unknown": settle(TemporaryError("busy")),
            "declined": settle(payments.Declined("No.")),
        },
    ),
    Payment: Cases(
        wanted_refund,
        {
            "refunded": lambda row: services.settle_refund(row, "re_1"),
            "refused": refund(PermanentError("No.")),
            "unknown": refund(TemporaryError("busy")),
        },
    ),
    Product: Cases(
        pending_picture,
        {
            "published": lambda row: thumbnails.publish_thumbnails(
                row, dict.fromkeys(thumbnails.pictures.WIDTHS, b"x")
            ),
            "failed": lambda row: thumbnails.end_picture(row, "broken"),
            "released": lambda row: row.release_picture(),
        },
    ),
    InventorySync: Cases(
        sync,
        {
            "page": lambda row: inventory.apply_page(row, PAGE, 1),
            "missing": lambda row: inventory.report_missing(row, {"X"}),
            "finished": lambda row: inventory.finish(row, PAGE),
            "unchanged": lambda row: row.mark_finished(SyncStatus.UNCHANGED, etag="x"),
            "waiting": lambda row: row.mark_waiting("busy", 1),
        },
    ),
    ProductImport: Cases(
        lambda: factories.make_import(CSV),
        {
            "checked": lambda row: row.mark_checked(9),
            "chunk": lambda row: import_services.import_chunk(row, list(imports.read(row.file))),
            "whole": import_services.import_file,
            "failed": lambda row: import_services.fail_imports(row.held(), "broken"),
            "done": import_services.finish_import,
        },
    ),
    CrmContact: Cases(
        factories.make_contact,
        {
            "synced": lambda row: row.mark_synced(),
            "delayed": lambda row: row.mark_delayed("busy", row.lease.lasts()),
            "failed": lambda row: row.mark_failed("broken"),
            "refused": lambda row: row.mark_refused("no"),
        },
    ),
    Report: Cases(
        lambda: factories.make_report(kind="stock", start=None, end=None),
        {
            "written": reports.write_report,
            "ready": lambda row: outcomes.finish(row, "reports/x.csv", row_count=1, size=1),
            "put off": lambda row: row.mark_put_off("busy"),
            "failed": lambda row: outcomes.fail(row.held(), "broken"),
        },
    ),
    Pack: Cases(
        complete_pack,
        {
            "written": packs.write_pack,
            "ready": lambda row: packs.finish(row, "packs/x.zip", size=1, missing_count=0),
            "failed": lambda row: packs.fail(row.held()),
        },
    ),
    Alert: Cases(
        due_alert,
        {
            "reached": lambda row: row.mark_reached("abc"),
            "silent": lambda row: row.mark_silent("no answer"),
            "told": lambda row: row.mark_sent(),
            "failed": lambda row: row.mark_failed("broken"),
        },
    ),
    User: Cases(lambda: make_user(mail_due_at=timezone.now()), MAILS),
    AccountMail: Cases(factories.make_mail, MAILS),
    Notification: Cases(factories.make_notification, MAILS),
    Erasure: Cases(factories.make_erasure, MAILS),
    Digest: Cases(
        factories.make_digest,
        MAILS | {"skipped": lambda row: digests.those([row], lambda row: False, Skip.UNWANTED)},
    ),
}
ANY: dict[str, Write] = {
    "hold": lambda row: row.hold(),
    "put off in general": lambda row: row.put_off(row.lease.lasts()),
    "finish": lambda row: row.finish(),
}
LEASED = [(model, name, None) for model, cases in CASES.items() for name in cases.writes | ANY]
LEASED += [(Order, name, MAIL) for name in MAILS]  # type: ignore[misc]


def world(folder: Path) -> dict[str, Any]:
    """Return all rows of the shop, and all its files."""
    rows = {m._meta.label: list(m._base_manager.order_by("pk").values()) for m in ours()}
    return rows | {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ours() -> list[type[models.Model]]:
    return [model for model in apps.get_models() if model._meta.app_label in OURS]


def test_each_leased_model_has_its_cases() -> None:
    lacking = {model._meta.label for model in ours() if issubclass(model, HasLease)} - {m._meta.label for m in CASES}

    assert not lacking, f"Add to CASES each write of the worker that holds a row of {', '.join(lacking)}."


@pytest.mark.parametrize("other", ["another task", "a copy of the message"])
@pytest.mark.parametrize(("model", "name", "lease"), LEASED)
def test_worker_that_was_taken_over_changes_nothing(
    model: type[HasLease], name: str, lease: Any, other: str, settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path
    row = owing_order() if lease else CASES[model].make()
    write = (MAILS if lease else CASES[model].writes | ANY)[name]
    fields = {"lease": lease} if lease else {}
    frozen = claim(row, "a copy of the message", **fields)
    model._base_manager.filter(pk=row.pk).update(**{(lease or model.lease).due_at: timezone.now()})
    holder = claim(row, other, **fields)
    before = world(tmp_path)

    with suppress(LeaseLost):
        write(frozen)

    assert world(tmp_path) == before
    assert holder.held(lease).exists()
