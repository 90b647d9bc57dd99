"""One bad row ends with its own reason, and the set that it came in goes on: for each set that is claimed or swept."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree

import pytest
from apprise import NotifyBase
from django.apps import apps
from django.db import connection, models
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, IntervalSchedule

from accounts import crm
from accounts import tasks as account_tasks
from accounts.models import CrmContact, User
from durable import mail
from durable.errors import ReasonField, TemporaryError, readable
from myproject import http
from myproject.alerting import chat
from myproject.alerting.models import Alert
from orders import digests, emails, import_services, payments, services
from orders import tasks as order_tasks
from orders.models import Digest, Order, PaymentStatus, Product, ProductImport, Status, days_before, week_of
from reports import charts, planning, tasks
from reports.models import DailySales, Format, Kind, PackStatus, ReportSchedule
from reports.services import write_report
from tests.broker import Broker
from tests.factories import (
    make_alert,
    make_contact,
    make_import,
    make_pack,
    make_product,
    make_report,
    make_schedule,
    make_user,
    place_order,
    put,
    running,
)
from tests.orders.test_services import Provider

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

OURS = ("myproject", "accounts", "orders", "reports")
SVG = "{http://www.w3.org/2000/svg}"
# What no column of PostgreSQL takes, what no encoding takes, and what a terminal obeys.
STRANGE = "a\0b\ud800c\x1b[31m\r\nd"


def forbid(table: str, condition: str) -> None:
    """Have the database refuse a row, as a constraint of tomorrow may."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT forbidden CHECK (NOT ({condition}))")


# --- Words of other companies ---


def test_words_of_others_are_readable_and_fit() -> None:
    assert readable(STRANGE) == "a·b·c·[31m d"
    assert ReasonField(max_length=5).get_prep_value(STRANGE) == "a·b·c"


def test_each_column_that_says_why_something_failed_takes_any_words() -> None:
    fields = [field for app in OURS for model in apps.get_app_config(app).get_models() for field in model._meta.fields]
    says_why = {"error", "reason", "mail_error", "picture_error", "flag_reason"}

    found = {field for field in fields if field.name in says_why and field.model._meta.model_name != "deadletter"}

    assert len(found) > 12
    assert {str(field) for field in found if not isinstance(field, ReasonField)} == set()
    assert all(isinstance(field, models.CharField) for field in found)


def test_answer_of_a_counterpart_is_readable_in_its_error() -> None:
    class Answer:
        text, reason = STRANGE, "No"

    assert http._reason(Answer()) == readable(STRANGE)  # type: ignore[arg-type]


def test_alert_is_stored_whatever_it_quotes() -> None:
    alert = make_alert(cause=STRANGE, subject=STRANGE, message=STRANGE)

    assert Alert.objects.get(pk=alert.pk).message == readable(STRANGE)


# --- Orders ---


def test_order_that_the_database_refuses_to_settle_is_a_person_s_and_the_others_are_completed() -> None:
    orders = [place_order() for _ in range(3)]
    forbid("orders_payment", "provider_id = 'pi_bad'")
    provider = Provider(payments.Charged("pi_1"), payments.Charged("pi_bad"), payments.Charged("pi_3"))

    with patch.object(payments, "charge_all", provider.charge_all), running("task"):
        claimed = services.claim_orders(orders[0].pk, limit=10)
        completed = services.process_orders(claimed).completed

    rows = [Order.objects.get(pk=order.pk) for order in orders]
    assert completed == [orders[0].pk, orders[2].pk]
    assert [row.status for row in rows] == [Status.COMPLETED, Status.PROCESSING, Status.COMPLETED]
    assert [bool(row.flagged_at) for row in rows] == [False, True, False]


def test_order_that_the_database_refuses_to_reserve_is_a_person_s_and_the_others_are_reserved() -> None:
    good, bad = place_order(), place_order()
    forbid("orders_order", f"id = {bad.pk} AND status = 'processing'")

    with running("task"):
        claimed = services.claim_orders(good.pk, limit=10)
        none = services.claim_orders(bad.pk, limit=10)

    assert ([order.pk for order in claimed], none) == ([good.pk], [])
    assert Order.objects.get(pk=good.pk).status == Status.PROCESSING
    assert Order.objects.flagged().get().flag_reason.startswith("The database refuses its next step")


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"id": "pi_\0"}, "mismatched"),
        ({"id": "p" * 61}, "mismatched"),
        ({"id": "ｐｉ"}, "mismatched"),
        ({"amount_received": None}, "started"),
        ({"currency": None}, "started"),
        ({"status": 7}, "declined"),
    ],
)
def test_answer_to_a_charge_that_cannot_be_is_of_its_own_order_alone(told: dict[str, Any], status: str) -> None:
    order = place_order()
    payment = order.payments.select_related("order").get()
    services.reserve([order.pk])
    whole = {"id": "pi_1", "status": "succeeded", "amount_received": 1250, "currency": "eur"} | told

    with patch.object(payments, "_client", lambda: client(whole)):
        outcome = payments._outcome(payment)
    services.settle_all({payment: outcome}, Order.objects.all())

    payment.refresh_from_db()
    assert payment.status == PaymentStatus(status)
    assert bool(Order.objects.flagged()) == (status == "mismatched")


def client(answer: dict[str, Any]) -> Any:
    """Return a provider's client whose charges are answered so."""
    intents = type("Intents", (), {"create": lambda self, *args: type("Intent", (), answer)})()
    return type("Client", (), {"v1": type("V1", (), {"payment_intents": intents})})


def test_sweep_that_fails_keeps_no_other_from_running(broker: Broker) -> None:
    order = put(place_order(), Status.COMPLETED)
    Order.objects.filter(pk=order.pk).update(mail_due_at=timezone.now())

    with patch.object(services, "give_up_old_orders", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        order_tasks.check_pending_orders()

    assert broker.messages() == [("mail", "orders.tasks.send_order_confirmation", {"order_id": order.pk})]


def test_refund_that_is_of_no_payment_of_ours_stops_no_reconciliation() -> None:
    refund = {"id": "re_1", "metadata": {}, "currency": "eur"}
    event = {"id": "re_1", "data": {"object": refund}}

    assert payments._told(event, payments.News.REFUNDED, None, 1250, "re_1") == []
    assert len(payments._told(event, payments.News.REFUNDED, "pi_1", 1250, "re_1")) == 1


# --- Alerts, packs, schedules, products ---


def test_alert_reaches_the_other_address_when_the_client_of_one_breaks(settings: Any) -> None:
    settings.ALERT_URLS = ["json://127.0.0.1:1/first", "json://127.0.0.1:1/second"]
    alert, asked = make_alert(), list[str]()

    def notify(self: NotifyBase, **said: Any) -> bool:
        asked.append(self.url())
        if len(asked) == 1:
            raise KeyError("a fault of the library")
        return True

    with patch.object(NotifyBase, "notify", notify), pytest.raises(TemporaryError):
        chat.deliver(alert.pk)

    alert.refresh_from_db()
    assert (len(set(asked)), len(alert.reached)) == (2, 1)
    assert alert.error.startswith("No answer from address 1")


def test_pack_is_made_without_a_report_whose_file_cannot_be_read(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path
    pack = make_pack()
    for report in pack.members.all():
        write_report(report)
    broken = Path(pack.members.order_by("kind")[0].file.path)
    broken.unlink()
    broken.mkdir()

    tasks.generate_pack.apply(kwargs={"pack_id": str(pack.pk)})

    pack.refresh_from_db()
    assert (pack.status, pack.missing_count) == (PackStatus.READY, 1)


@pytest.mark.parametrize(
    "times",
    [
        {"day_of_month": "30", "month_of_year": "2"},
        {"minute": "99"},
        {"every": 3_000_000, "period": "days"},
        {"every": 2**31 - 1, "period": "days"},
    ],
)
def test_schedule_whose_times_never_come_stops_neither_the_others_nor_a_page(
    times: dict[str, Any], staff: User, client: Client
) -> None:
    bad, good = make_schedule(name="Never"), make_schedule(name="Daily", when={"day_of_week": "*", "hour": "9"})
    crontab = bad.periodic_task.crontab
    assert crontab is not None
    if "every" in times:
        type(bad.periodic_task).objects.filter(pk=bad.periodic_task.pk).update(
            crontab=None, interval=IntervalSchedule.objects.create(**times)
        )
    else:
        CrontabSchedule.objects.filter(pk=crontab.pk).update(**times)
    ReportSchedule.objects.update(last_due_at="2026-01-01T00:00Z")
    type(bad.periodic_task).objects.update(date_changed="2026-01-01T00:00Z")
    client.force_login(staff)

    due = planning.all_due()
    about = ("/reports/schedules/", bad.get_absolute_url(), "/how-it-works/", "/dashboard/queues/")
    pages = [client.get(address) for address in about]

    assert due == [good]
    assert [page.status_code for page in pages] == [200, 200, 200, 200]
    assert b"please correct its times" in pages[0].content


def test_product_that_has_lost_its_sku_keeps_its_address_to_itself() -> None:
    old = make_product(name="提灯", sku="灯三")
    old.sku = "X-1"
    old.save()

    new = make_product(name="提灯", sku="灯三")

    assert new.slug not in ("", old.slug)
    assert Product.objects.values("slug").distinct().count() == 2


# --- Imports, contacts, digests, charts ---


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


def imported(*skus: str) -> ProductImport:
    lines = "".join(f"Lamp {sku},{sku},1.50,3,Lighting\n" for sku in skus)
    row = make_import(f"name,sku,price,stock,category\n{lines}")
    order_tasks.import_products.apply(kwargs={"import_id": str(row.pk)})
    row.refresh_from_db()
    return row


@pytest.mark.parametrize("chunk", [1, 2, 1000])
@pytest.mark.parametrize("error", ["IntegrityError", "DataError"])
def test_row_that_the_database_refuses_is_rejected_and_all_others_of_its_import_are_taken_in(
    error: str, chunk: int, media: None, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_services, "CHUNK", chunk)
    make_product(sku="C", stock=1)
    if error == "IntegrityError":
        forbid("orders_product", "sku IN ('B', 'E')")
    else:
        real = import_services.product_of
        monkeypatch.setattr(import_services, "product_of", lambda row, *rest: too_long(real(row, *rest)))

    row = imported(*"ABCDEF")

    assert (row.status, row.created_count, row.updated_count, row.rejected_count) == ("done", 3, 1, 2)
    assert set(Product.objects.values_list("sku", "stock")) == {(sku, 3) for sku in "ACDF"}
    rejected = row.rejected_rows.order_by("line").values_list("line", "reason")
    assert list(rejected) == [(line, f"The database refuses this row ({error}).") for line in (3, 6)]


def too_long(product: Product) -> Product:
    if product.sku in ("B", "E"):
        product.name = "x" * 81
    return product


def test_row_that_somebody_adds_at_the_same_moment_is_not_rejected(
    media: None, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_product(sku="A", stock=3)
    real, seen = import_services.lock_known, list[int]()

    def lock_known(rows: Any) -> Any:
        seen.append(len(rows))
        # At first the other one has not committed yet.
        return real(rows) if len(seen) > 1 else {}

    monkeypatch.setattr(import_services, "lock_known", lock_known)

    row = imported("A")

    assert (row.status, row.rejected_count, row.updated_count) == ("done", 0, 1)


def test_contact_that_is_refused_or_cannot_be_sent_keeps_no_other_from_the_crm(
    settings: Any, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CRM_URL = "http://crm.example.com"
    refused, faulty, *good = (make_contact() for _ in range(4))

    def put(user: User, version: object) -> None:
        if user == refused.user:
            raise http.Refused("PUT /contacts: 422 no such country", 422)
        if user == faulty.user:
            raise LookupError("a fault of ours")

    monkeypatch.setattr(crm, "put_contact", put)
    most = CrmContact.lease.max_attempts or 0
    asked = [sweep_contacts(broker) for _ in range(most + 1)]

    rows = [CrmContact.objects.get(pk=row.pk) for row in (refused, faulty, *good)]
    assert asked == [4, *[1] * (most - 1), 0]
    assert [row.status for row in rows] == ["refused", "failed", "synced", "synced"]
    assert [row.error for row in rows[:2]] == [
        "PUT /contacts: 422 no such country",
        "It could not be sent in 6 attempts.",
    ]


def sweep_contacts(broker: Broker) -> int:
    """Sweep, do all that was queued, and let each lease be over; return how many were queued."""
    account_tasks.check_unsynced_contacts()
    queued = broker.messages()
    for number, (_, _, kwargs) in enumerate(queued):
        account_tasks.sync_user_to_crm.apply(kwargs=kwargs, task_id=f"task-{number}")
    CrmContact.objects.filter(due_at__isnull=False).update(due_at=timezone.now())
    return len(queued)


@pytest.mark.parametrize("door", ["written", "sent"])
def test_digest_that_cannot_be_written_or_sent_waits_with_its_reason_and_the_others_go_out(
    door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *_ = (make_user(wants_digest=True) for _ in range(4))
    make_product(created_at=days_before(week_of(timezone.now()))[0])
    digests.plan(week_of(timezone.now()))
    name, module = ("digest", emails) if door == "written" else ("send", mail)
    real = getattr(module, name)

    def fail(what: Any, *rest: Any) -> Any:
        if bad.email in (what.to if door == "sent" else [what.person.email]):
            raise LookupError("a fault of ours")
        return real(what, *rest)

    monkeypatch.setattr(module, name, fail)
    sent = [digests.send_chunk(week_of(timezone.now())) for _ in range(2)]

    row = Digest.objects.get(person=bad)
    assert (sent, Digest.objects.filter(mail_sent_at__isnull=False).count()) == ([3, 0], 3)
    assert (row.mail_error, row.mail_due_at is not None) == (f"The mail could not be {door}: LookupError.", True)


@pytest.mark.parametrize("draw", [charts.bars, charts.line])
@pytest.mark.parametrize("bad", [Decimal("NaN"), Decimal("Infinity"), Decimal("1E+400"), float("nan"), None])
def test_value_that_cannot_be_drawn_is_named_and_the_others_are_drawn(draw: charts.Draw, bad: Any) -> None:
    chart = draw("Sales", ["1 Nov", "2 Nov", "3 Nov"], [10, bad, 20], say=lambda value: f"€{value}")

    marks = [title.text for title in ElementTree.fromstring(chart).iter(f"{SVG}title")][1:]
    assert marks == ["1 Nov: €10", "2 Nov: no number", "3 Nov: €20"]
    assert "Not drawn, since there is no number: 2 Nov." in chart
    assert "nan" not in chart


def write_nan(table: str, column: str, where: str) -> None:
    """Write what a column of PostgreSQL takes, and none of our forms."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = 'NaN' WHERE {where}")


def test_dashboard_shows_the_other_days_where_the_sum_of_one_is_no_number(
    staff: User, client: Client, settings: Any, media: None
) -> None:
    today = timezone.localdate()
    day = {"orders": 1, "units": 1, "refunded_orders": 0, "refunded_units": 0, "refunds": 0}
    for ago in (1, 2):
        DailySales.objects.create(day=today - timedelta(days=ago), revenue=Decimal("12.50"), **day)
    write_nan("reports_dailysales", "revenue", f"day = '{today - timedelta(days=1)}'")
    client.force_login(staff)

    page = client.get("/dashboard/").content.decode()

    assert f"Not drawn, since there is no number: {today - timedelta(days=1):%-d %b}." in page
    assert "€12.50" in page


def test_report_has_its_rows_and_chart_where_one_bar_cannot_be_drawn(staff: User, media: None) -> None:
    good, bad = make_product(price=Decimal("2.00"), stock=3, category="Light"), make_product(category="Dark")
    with connection.cursor() as cursor:
        cursor.execute(
            "SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE orders_product DROP CONSTRAINT product_price_is_number"
        )
    write_nan("orders_product", "price", f"id = {bad.pk}")
    report = make_report(staff, kind=Kind.STOCK, format=Format.CSV, start=None, end=None)

    write_report(report)

    report.refresh_from_db()
    chart = (report.preview or {})["chart"]
    assert report.is_ready
    assert "Light: €6.00" in chart
    assert "Not drawn, since there is no number: Dark." in chart
    assert good.sku in report.file.open().read().decode()
