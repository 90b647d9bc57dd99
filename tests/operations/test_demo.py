"""The demo's history: it agrees with itself, with the sandbox, and leaves nothing to do but what it means to."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import requests
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Count, F, Max, Min, Sum
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

import orders.demo
from accounts import tasks as account_tasks
from accounts.models import CrmContact, User
from durable.errors import TemporaryError
from myproject import demo
from myproject.alerting.models import Alert, Canary
from orders import inventory, money, tasks
from orders.models import (
    HOLDS_STOCK,
    Digest,
    InventorySync,
    Kind,
    Order,
    OrderEvent,
    OrderItem,
    Payment,
    PaymentStatus,
    Product,
    ProductImport,
    Status,
)
from reports import tasks as report_tasks
from reports.models import DailySales, Pack, PackStatus, Report, ReportSchedule
from reports.models import Status as ReportStatus
from tests.sandbox.conftest import Sandbox

pytestmark = [pytest.mark.operations, pytest.mark.django_db(transaction=True)]
SWEEPS = [
    *(account_tasks.check_unsent_mail, account_tasks.check_unsynced_contacts),
    *(tasks.check_pending_orders, tasks.check_unsent_digests, tasks.check_unfinished_imports),
    *(report_tasks.check_unfinished_reports, report_tasks.check_due_schedules, report_tasks.check_unfinished_packs),
]


@pytest.fixture
def world(tmp_path: Path, settings: Settings) -> Iterator[Sandbox]:
    with Sandbox(tmp_path) as own:
        settings.SANDBOX_API = own.url
        settings.WAREHOUSE_URL = f"{own.url}/warehouse"
        yield own


def seed(**options: Any) -> str:
    out = StringIO()
    call_command("seed_demo", stdout=out, **{"orders": 300} | options)
    return out.getvalue()


def asked(world: Sandbox, path: str) -> Any:
    return requests.get(f"{world.url}{path}", timeout=10).json()


def past() -> Any:
    """All orders but the one that waits for a worker."""
    return Order.objects.exclude(status=Status.PENDING)


def test_history_has_every_state(world: Sandbox) -> None:
    seed(orders=1500)

    assert past().count() == 1500
    assert set(Order.objects.values_list("status", flat=True)) == set(Status)
    assert Order.objects.flagged().count() == 1
    casey = Order.objects.filter(customer__email="customer@example.com").order_by("-created_at")
    assert casey[0].status == Status.PAYMENT_FAILED
    assert {Status.COMPLETED, Status.REFUNDED} <= set(casey.values_list("status", flat=True))
    assert User.objects.filter(is_staff=False).count() == CrmContact.objects.count() == 13
    span = past().aggregate(first=Min("created_at"), last=Max("created_at"))
    assert timedelta(days=85) < timezone.now() - span["first"] < timedelta(days=91)
    assert timedelta(minutes=15) < timezone.now() - span["last"] < timedelta(days=2)
    assert OrderEvent.objects.filter(created_at__gt=timezone.now()).count() == 0
    assert Report.objects.filter(status=ReportStatus.READY).count() >= 13
    assert Report.objects.filter(status=ReportStatus.FAILED).count() == 1
    assert list(Pack.objects.values_list("status", "missing_count")) == [(PackStatus.READY, 0)]
    assert ReportSchedule.objects.count() == 1
    assert list(ProductImport.objects.values_list("status", "rejected_count", "created_count")) == [("done", 6, 0)]
    assert min(Alert.objects.count(), Canary.objects.count(), Digest.objects.count()) > 1
    assert DailySales.objects.count() > 80
    assert not Report.objects.filter(pack=None, end__gte=F("created_at__date")).exists()


@pytest.mark.parametrize("batch", [orders.demo.BATCH, 70])
def test_rows_agree_with_each_other(world: Sandbox, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(orders.demo, "BATCH", batch)
    before = indexes()

    seed()

    assert indexes() == before
    assert past().count() == 300
    assert dangling() == []
    totals = past().annotate(sums=Sum(F("items__price") * F("items__quantity")))
    assert not totals.exclude(total=F("sums")).exists()
    last = {Status(status): Kind(status) for status in Status}
    wrong = [
        order.reference
        for order in past().prefetch_related("events")
        if last[Status(order.status)] not in {event.kind for event in order.events.all()}
        or min(order.events.all(), key=lambda event: event.created_at).kind != Kind.PLACED
    ]
    assert wrong == []
    sold = Order.objects.filter(status__in=[Status.COMPLETED, Status.REFUNDED])
    paid = sold.filter(payments__status__in=[PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDED])
    assert paid.annotate(Count("payments")).count() == sold.count()
    assert not Payment.objects.exclude(amount=F("order__total")).exists()
    assert sum(row.orders for row in DailySales.objects.all()) == sold.count()
    assert sum(row.net for row in DailySales.objects.all()) == sum(
        order.total for order in sold.filter(status=Status.COMPLETED)
    )


def indexes() -> set[tuple[str, str]]:
    """Return each index and each constraint, with its definition.

    PostgreSQL writes the casts of a condition in another way when it has read them once.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' UNION "
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        )
        return {(name, re.sub(r"::(text|character varying)(\[\])?|[()]", "", told)) for name, told in cursor.fetchall()}


def dangling() -> list[str]:
    """Return the foreign keys that name no row."""
    keys = [
        (field, field.related_model._base_manager.all())
        for model in (Order, OrderItem, Payment, OrderEvent)
        for field in model._meta.fields
        if field.related_model
    ]
    return [
        str(field) for field, rows in keys if field.model._base_manager.exclude(**{f"{field.name}__in": rows}).exists()
    ]


def test_large_shop_has_more_customers(world: Sandbox) -> None:
    seed(orders=2_000, days=400)

    buyers = User.objects.filter(is_staff=False)
    assert buyers.count() == CrmContact.objects.count() == 17
    assert buyers.filter(orders=None).count() == 0
    assert timezone.now() - past().aggregate(first=Min("created_at"))["first"] > timedelta(days=390)


def test_world_outside_remembers_the_same(world: Sandbox) -> None:
    seed()

    ledger, mails = asked(world, "/ledger.json"), asked(world, "/mail.json?to=")
    charged = Payment.objects.filter(status__in=[PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDED])
    theirs = {c["id"]: (c["order"], c["amount"]) for c in ledger["charges"] if c["status"] != "declined"}
    assert theirs == {
        payment.provider_id: (payment.order.reference, money.to_units(payment.amount, payment.currency))
        for payment in charged.select_related("order")
    }
    declined = sum(charge["status"] == "declined" for charge in ledger["charges"])
    assert declined == Payment.objects.filter(status=PaymentStatus.DECLINED).count()
    refunded = Payment.objects.filter(status=PaymentStatus.REFUNDED)
    assert {refund["id"] for refund in ledger["refunds"]} == set(refunded.values_list("refund_id", flat=True))
    assert ledger["charged_twice"] == []
    confirmed = Counter(mail["message_id"] for mail in mails if "order-" in mail["message_id"])
    sent = Order.objects.filter(mail_sent_at__gt=timezone.now() - timedelta(days=30))
    assert len(confirmed) == sum(confirmed.values()) == sent.count()
    assert {mail["from"] for mail in mails} == {"shop@example.com"}
    assert len(asked(world, "/crm.json")["contacts"]) == CrmContact.objects.count()
    assert len(asked(world, "/chat.json")) == Alert.objects.count()


def test_stock_follows_from_what_came_in_and_what_was_sold(world: Sandbox) -> None:
    seed()
    before = dict(Product.objects.values_list("sku", "stock"))
    run = InventorySync.objects.open_one()

    for claimed in InventorySync.objects.claim(first=InventorySync.objects.filter(pk=run.pk)):
        inventory.synchronise(claimed)

    assert dict(Product.objects.values_list("sku", "stock")) == before
    assert run.differences.count() == 0
    levels = dict(Product.objects.values_list("sku", "warehouse_units"))
    held = OrderItem.objects.filter(order__status__in=HOLDS_STOCK).values_list("product__sku")
    assert levels == {sku: stock + dict(held.annotate(Sum("quantity"))).get(sku, 0) for sku, stock in before.items()}


def test_sweeps_find_the_one_order_that_waits(world: Sandbox) -> None:
    seed()
    Order.objects.filter(status=Status.PENDING).update(due_at=timezone.now())

    with patch("celery.app.task.Task.apply_async", autospec=True) as publish:
        for check in SWEEPS:
            check()

    published = [call.args[0].name for call in publish.call_args_list]
    assert published == ["orders.tasks.process_order"]
    assert Order.objects.flagged().count() == 1


def test_history_twice_is_once(world: Sandbox) -> None:
    seed()
    counted = [model.objects.count() for model in (User, Order, OrderEvent, Payment, Report, Alert, Digest)]
    mails = len(asked(world, "/mail.json"))

    assert seed() == ""

    assert [m.objects.count() for m in (User, Order, OrderEvent, Payment, Report, Alert, Digest)] == counted
    assert len(asked(world, "/mail.json")) == mails


def test_history_told_twice_is_written_once(world: Sandbox) -> None:
    message = {"title": "A", "message": "B", "kind": "info", "received": 1.0}

    answers = [
        requests.post(f"{world.url}/history", json={"name": "one", "messages": [message]}, timeout=10).json()
        for _ in range(2)
    ]

    assert answers == [{"written": True}, {"written": False}]
    assert len(asked(world, "/chat.json")) == 1


def test_broken_history_writes_nothing(world: Sandbox) -> None:
    told = {"name": "one", "messages": [{"title": "A", "message": "B", "kind": "info", "received": 1.0}]}

    answer = requests.post(f"{world.url}/history", json=told | {"charges": [{"id": "pi_1"}]}, timeout=10)

    assert answer.status_code == 400
    assert asked(world, "/chat.json") == []


def test_empty_leaves_the_history_out(world: Sandbox) -> None:
    seed(empty=True)

    assert (Order.objects.count(), Report.objects.count(), Alert.objects.count()) == (0, 0, 0)
    assert Product.objects.count() == 48


def test_history_comes_later_to_a_shop_that_was_seeded_empty(world: Sandbox) -> None:
    seed(empty=True)

    seed(orders=50)

    assert past().count() == 50


def test_history_waits_for_the_sandbox(settings: Settings) -> None:
    settings.SANDBOX_API = "http://127.0.0.1:9"

    assert "does not answer" in seed()

    assert Order.objects.count() == 0


@pytest.mark.parametrize("option", ["--days", "--orders"])
def test_history_needs_a_day_and_an_order(option: str) -> None:
    with pytest.raises(CommandError, match="invalid positive value"):
        call_command("seed_demo", option, "0")


def test_history_that_is_not_told_is_an_error(settings: Settings) -> None:
    settings.SANDBOX_API = ""
    with patch.object(demo, "tell", side_effect=TemporaryError("away")), pytest.raises(CommandError, match="away"):
        seed(orders=20)


def test_pages_show_the_history(world: Sandbox) -> None:
    seed()
    client = Client()
    client.force_login(User.objects.get(email="staff@example.com"))

    pages = {path: client.get(path).content.decode() for path in ("/dashboard/", "/imports/", "/reports/schedules/")}

    assert "Casey" not in pages["/dashboard/"]
    assert "spring-catalogue.csv" in pages["/imports/"]
