"""The download of one's own data, which no one else can read."""

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from allauth.account.models import EmailAddress
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from durable.leases import LeaseLost
from orders.models import Card, Kind, Order, OrderEvent
from orders.models import Status as OrderStatus
from reports import personal, services, tasks
from reports.models import Format, Report, Status
from reports.models import Kind as ReportKind
from tests.broker import Broker
from tests.factories import (
    claim,
    end,
    make_digest,
    make_export,
    make_mail,
    make_notification,
    make_product,
    make_report,
    make_user,
    place_order,
    put,
)
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]


def export(person: User) -> dict[str, Any]:
    target = BytesIO()
    personal.write(person, target, lambda rows: None)
    data: dict[str, Any] = json.loads(target.getvalue())
    return data


# --- What the file says ---

EMPTY = ["email_addresses", "orders", "basket", "mails", "notices", "api_tokens", "digests", "reports", "packs"]
EMPTY += ["report_schedules"]


def test_export_has_every_section_when_there_is_nothing(customer: User) -> None:
    data = export(customer)

    assert list(data) == ["account", *EMPTY]
    assert (data["account"][0]["email"], data["account"][0]["name"]) == (customer.email, "Alice")
    assert [data[name] for name in EMPTY] == [[]] * len(EMPTY)


def test_export_tells_an_order_with_all_that_belongs_to_it(customer: User) -> None:
    lamp = make_product(name='Lamp "Ålesund"', price=Decimal("12.50"))
    placed = put(place_order(customer, lamp, 2), OrderStatus.COMPLETED)

    [order] = export(customer)["orders"]

    assert (order["reference"], order["status"], order["total"]) == (placed.reference, "Completed", "25.00")
    assert order["items"] == [{"name": 'Lamp "Ålesund"', "price": "12.50", "quantity": 2}]
    assert [(p["card"], p["amount"], p["status"]) for p in order["payments"]] == [
        ("Visa ending 4242", "25.00", "Started")
    ]
    assert [line["what"] for line in order["time_line"]] == ["Order placed"]


def test_export_keeps_the_notes_of_staff_to_staff(customer: User) -> None:
    order = place_order(customer)
    OrderEvent.objects.record([order.pk], Kind.REQUEUED, detail="by sam@example.com")

    assert "sam@example.com" not in json.dumps(export(customer))


def test_export_tells_notices_and_digests(customer: User) -> None:
    make_notification(customer, subject="Your import is done")
    make_digest(customer)
    make_notification()

    data = export(customer)

    assert [notice["subject"] for notice in data["notices"]] == ["Your import is done"]
    assert [list(digest) for digest in data["digests"]] == [["week", "mail_sent_at"]]
    assert data["account"][0]["wants_digest"] is False


def test_export_that_is_cut_short_leaves_no_cursor_behind(customer: User) -> None:
    make_notification(customer)

    def stop(rows: int) -> None:
        if rows > 1:
            raise LeaseLost

    with pytest.raises(LeaseLost) as kept:
        personal.write(customer, BytesIO(), stop)

    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_cursors")
        assert (kept.type, cursor.fetchall()) == (LeaseLost, [])


def test_export_tells_mails_without_their_one_time_links(customer: User) -> None:
    make_mail(user=customer, to="old@example.com", subject="Confirm", text="https://shop/secret-link")
    make_mail(to=customer.email, subject="Before mails knew their person")
    make_mail(to="somebody@example.com", subject="Not yours")

    data = export(customer)

    assert [mail["subject"] for mail in data["mails"]] == ["Confirm", "Before mails knew their person"]
    assert "secret-link" not in json.dumps(data)


def test_export_is_about_one_person(customer: User) -> None:
    other = make_user(name="Bob Other", email="bob@example.com")
    place_order(other)
    make_export(other)
    EmailAddress.objects.create(user=other, email=other.email)
    EmailAddress.objects.create(user=customer, email=customer.email, verified=True)

    data = export(customer)

    assert data["email_addresses"] == [{"email": customer.email, "verified": True}]
    assert (data["orders"], data["reports"]) == ([], [])
    assert "bob" not in json.dumps(data).lower()


def test_export_counts_its_rows(customer: User) -> None:
    for _ in range(3):
        place_order(customer)
    report = make_export(customer)

    services.write_report(report)

    report.refresh_from_db()
    # The account, three orders, and this very export.
    assert (report.status, report.row_count) == (Status.READY, 5)
    assert report.size == Path(report.file.path).stat().st_size
    assert report.filename == f"personal-data-{date.today()}.json"  # noqa: DTZ011


def test_export_makes_as_many_queries_for_three_orders_as_for_one(customer: User) -> None:
    counts = []
    for rows in (1, 2):
        for _ in range(rows):
            place_order(customer)
        with CaptureQueriesContext(connection) as queries:
            export(customer)
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_generate_report_twice_writes_one_export(customer: User) -> None:
    report = make_export(customer)

    for _ in range(2):
        tasks.generate_report.apply(kwargs={"report_id": str(report.pk)}).get()

    report.refresh_from_db()
    assert (report.attempts, len(list(Path(settings.MEDIA_ROOT, "reports").glob(f"{report.pk}*")))) == (1, 1)


# --- Asking for it ---


@pytest.mark.django_db(transaction=True)
def test_export_is_asked_for_and_queued(login: Login, customer: User, broker: Broker) -> None:
    answer = login(customer).post("/people/data/")

    report = Report.objects.get()
    assert (answer["Location"], report.kind) == (report.get_absolute_url(), ReportKind.PERSONAL_DATA)
    assert broker.messages() == [("reports", "reports.tasks.generate_report", {"report_id": str(report.pk)})]


def test_export_asked_for_twice_is_the_same_one_while_it_is_made(login: Login, customer: User) -> None:
    client = login(customer)
    make_export()

    first, second = client.post("/people/data/"), client.post("/people/data/")
    end(Report.objects.of(customer).get(), "No.")
    third = client.post("/people/data/")

    assert first["Location"] == second["Location"] != third["Location"]


def test_export_page_lists_one_s_own_and_nothing_is_made_by_looking(login: Login, customer: User) -> None:
    own = make_export(customer)
    make_export()

    page = login(customer).get("/people/data/")

    assert (list(page.context["reports"]), Report.objects.count()) == ([own], 2)


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("report_format_of_kind", {"kind": "gossip"}),
        ("report_dates_where_needed", {"start": date(2026, 1, 1), "end": date(2026, 1, 1)}),
        ("report_dates_where_needed", {"kind": ReportKind.SALES, "format": "csv"}),
        ("report_format_of_kind", {"format": "pdf"}),
    ],
)
def test_database_refuses_what_must_never_be(constraint: str, fields: dict[str, Any]) -> None:
    make_export()

    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Report.objects.update(**fields)


def test_database_refuses_a_second_open_export(customer: User) -> None:
    make_export(customer)

    with pytest.raises(IntegrityError, match="report_same_while_open"), transaction.atomic():
        make_export(customer)


# --- Who may read it ---


@pytest.mark.parametrize("path", ["", "status/", "download/"])
def test_export_is_not_found_by_anybody_else(path: str, login: Login, customer: User, staff: User) -> None:
    report = make_export(customer)
    services.write_report(report)

    answers = [login(person).get(f"{report.get_absolute_url()}{path}") for person in (staff, make_user())]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert Client().get(f"{report.get_absolute_url()}{path}")["Location"].startswith("/accounts/login/")


def test_export_is_downloaded_by_its_person_and_never_cached(login: Login, customer: User) -> None:
    report = make_export(customer)
    services.write_report(report)

    answer = login(customer).get(f"{report.get_absolute_url()}download/", follow=True)

    assert answer["Content-Disposition"].startswith('attachment; filename="personal-data-')
    assert answer["Cache-Control"] == "private, no-store"
    assert json.loads(b"".join(answer.streaming_content))["account"][0]["name"] == "Alice"  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", ["queued", "running", "failed", "ready"])
def test_export_has_a_page_whatever_its_state(status: str, login: Login, customer: User) -> None:
    report = make_export(customer)
    if status == "ready":
        services.write_report(report)
    elif status == "failed":
        end(report, "The disk is full.")
    elif status == "running":
        claim(report, "one", status="running")

    page = login(customer).get(report.get_absolute_url())

    assert (page.status_code, "/people/data/" in page.content.decode()) == (200, True)


def test_report_of_sales_stays_with_staff(login: Login, staff: User) -> None:
    report = make_report(staff)
    User.objects.filter(pk=staff.pk).update(is_staff=False)

    assert login(staff).get(report.get_absolute_url()).status_code == 403


# --- With the real processes ---


@pytest.mark.django_db(transaction=True)
def test_export_is_made_by_a_worker_and_downloaded_from_the_web(shop: Shop, login: Login) -> None:
    person = make_user(name="Alice", email="alice@example.com")
    order = place_order(person, card=Card.VISA)
    client = login(person)

    # The message is lost: only the row says what is wanted, and the sweep finds it.
    owed = services.ask_for(person, kind=ReportKind.PERSONAL_DATA, format=Format.JSON)
    Report.objects.filter(pk=owed.pk).update(due_at=order.created_at)
    wait_for(lambda: Report.objects.filter(status=Status.READY).exists(), "the export")
    report = Report.objects.get()

    cookie = f"sessionid={client.cookies['sessionid'].value}"
    url = f"{settings.SITE_URL}{report.get_absolute_url()}download/"
    with urlopen(Request(url, headers={"Cookie": cookie}), timeout=10) as answer:
        data = json.load(answer)
    assert data["account"][0]["email"] == "alice@example.com"
    assert [row["reference"] for row in data["orders"]] == [Order.objects.get().reference]
