"""The month-end pack: many reports, one ZIP, whatever is doubled, lost or killed on the way."""

import csv
import hashlib
import io
import os
import signal
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from django.conf import settings as shop_settings
from django.core.files.base import ContentFile
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from accounts.models import Notification, User
from myproject.storage.files import files_in
from orders.models import Status as OrderStatus
from reports import erasure, packs, services, tasks
from reports.models import Format, Kind, Pack, PackStatus, Report, Status, private_files
from tests.broker import Broker
from tests.factories import claim, end, make_erasure, make_pack, make_product, make_report, make_user, place_order, put
from tests.reports.conftest import largest_file
from tests.shop import Shop, strike, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
OCTOBER = "2026-10-01-2026-10-31"
DATED = [
    f"order-lines-{OCTOBER}.csv",
    f"sales-by-category-{OCTOBER}.pdf",
    f"sales-by-customer-{OCTOBER}.xlsx",
    f"sales-by-day-{OCTOBER}.pdf",
    "sales-by-day-2025-10-01-2025-10-31.pdf",
    f"sales-by-product-{OCTOBER}.xlsx",
]
IN_ORDER = ["kind", "-start"]


def files(pack: Pack) -> list[str]:
    return [*DATED, f"stock-{timezone.localdate(pack.created_at)}.xlsx"]


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def office(login: Login, staff: User, media: None) -> Client:
    return login(staff)


def sell(day: str) -> None:
    put(place_order(product=make_product()), OrderStatus.COMPLETED, datetime.fromisoformat(f"{day}T12:00+02:00"))


def write_members(pack: Pack) -> None:
    for report in pack.members.all():
        services.write_report(report)


def bundle(pack: Pack, times: int = 1) -> None:
    for _ in range(times):
        tasks.generate_pack.apply(kwargs={"pack_id": str(pack.pk)})
    pack.refresh_from_db()


def end_lease(pack: Pack) -> None:
    Pack.objects.filter(pk=pack.pk).update(due_at=timezone.now())


def index_of(pack: Pack) -> list[dict[str, str]]:
    with zipfile.ZipFile(pack.file.path) as archive:
        return list(csv.DictReader(io.StringIO(archive.read("index.csv").decode("utf-8-sig"))))


def stored(pack: Pack) -> list[str]:
    """Name all files of the pack, also those that its row does not name."""
    return [name for name in files_in("packs", private_files()) if name.startswith(str(pack.pk))]


# --- What is in it ---


def test_pack_has_each_report_of_the_list_once() -> None:
    pack = make_pack()

    reports = pack.members.order_by(*IN_ORDER).values_list("kind", "format", "start", "end")

    october = (date(2026, 10, 1), date(2026, 10, 31))
    assert list(reports) == [
        (Kind.SALES, Format.CSV, *october),
        (Kind.SALES_BY_CATEGORY, Format.PDF, *october),
        (Kind.SALES_BY_CUSTOMER, Format.XLSX, *october),
        (Kind.SALES_BY_DAY, Format.PDF, *october),
        (Kind.SALES_BY_DAY, Format.PDF, date(2025, 10, 1), date(2025, 10, 31)),
        (Kind.SALES_BY_PRODUCT, Format.XLSX, *october),
        (Kind.STOCK, Format.XLSX, None, None),
    ]


@pytest.mark.parametrize(
    ("month", "back", "days"),
    [
        (date(2026, 1, 1), 1, (date(2025, 12, 1), date(2025, 12, 31))),
        (date(2028, 2, 1), 0, (date(2028, 2, 1), date(2028, 2, 29))),
        (date(2028, 2, 1), 12, (date(2027, 2, 1), date(2027, 2, 28))),
        (date(2026, 12, 1), 12, (date(2025, 12, 1), date(2025, 12, 31))),
    ],
)
def test_months_before_cross_the_year(month: date, back: int, days: tuple[date, date]) -> None:
    assert packs.month_before(month, back) == days


def test_zip_has_each_file_once_and_an_index_that_is_right(media: None) -> None:
    for day in ("2026-10-05", "2026-10-06", "2026-09-05"):
        sell(day)
    pack = make_pack()
    write_members(pack)

    bundle(pack)

    with zipfile.ZipFile(pack.file.path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*files(pack), "index.csv"]
        contents = {name: archive.read(name) for name in files(pack)}
    assert [(row["file"], row["rows"], row["bytes"], row["sha256"], row["note"]) for row in index_of(pack)] == [
        (name, rows, str(len(contents[name])), hashlib.sha256(contents[name]).hexdigest(), "")
        for name, rows in zip(files(pack), ["2", "1", "3", "31", "31", "3", "3"], strict=True)
    ]
    assert (index_of(pack)[0]["first_day"], index_of(pack)[0]["last_day"]) == ("2026-10-01", "2026-10-31")
    assert (pack.status, pack.missing_count, pack.size) == (PackStatus.READY, 0, Path(pack.file.path).stat().st_size)


def test_pack_is_ready_without_a_report_that_failed_and_says_so(media: None, broker: Broker) -> None:
    pack = make_pack()
    first, *others = pack.members.order_by(*IN_ORDER)
    end(first, "The disk is full.")
    for report in others:
        services.write_report(report)

    bundle(pack)

    assert (pack.status, pack.missing_count) == (PackStatus.READY, 1)
    assert [(row["file"], row["note"]) for row in index_of(pack)] == [
        ("", "The disk is full."),
        *((name, "") for name in files(pack)[1:]),
    ]
    assert "1 of its reports could not be made" in Notification.objects.get().message


def test_pack_is_ready_without_a_report_whose_file_is_gone(media: None) -> None:
    pack = make_pack()
    write_members(pack)
    Path(pack.members.order_by(*IN_ORDER)[0].file.path).unlink()

    bundle(pack)

    assert (pack.missing_count, index_of(pack)[0]["note"]) == (1, "Its file was removed.")


def test_pack_has_failed_when_none_of_its_reports_could_be_made(media: None, broker: Broker) -> None:
    pack = make_pack()
    for report in pack.members.all():
        end(report, "No.")

    bundle(pack)

    assert (pack.status, pack.error, pack.file.name) == (PackStatus.FAILED, "None of its reports could be made.", "")
    assert Notification.objects.get().subject == "Month-end pack October 2026 could not be made"


def test_pack_ends_with_the_reason_when_the_disk_has_no_room_for_it(media: None, broker: Broker) -> None:
    pack = make_pack()
    write_members(pack)

    with largest_file(20_000):
        bundle(pack)

    assert (pack.status, stored(pack)) == (PackStatus.FAILED, [])
    assert pack.error == "The pack could not be written: File too large. Please request it again later."
    assert Notification.objects.get().message == pack.error


def test_zip_is_written_in_constant_memory(media: None) -> None:
    def peak(size: int) -> int:
        report = make_report()
        report.mark_ready(private_files().save("reports/x.csv", ContentFile(os.urandom(size))), row_count=1, size=size)
        report.refresh_from_db()
        tracemalloc.start()
        with (shop_settings.VAR_DIR / "memory.zip").open("w+b") as target:
            packs.write_zip([report], target)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(40 * packs.CHUNK) < peak(4 * packs.CHUNK) + packs.CHUNK


# --- Once, whatever is doubled or lost ---


@pytest.mark.proves("reports.tasks.generate_pack", "twice", page="reports:pack")
@pytest.mark.proves("reports.tasks.check_unfinished_packs", "twice")
def test_generate_pack_twice_is_once(media: None, broker: Broker) -> None:
    pack = make_pack()
    write_members(pack)

    bundle(pack, times=3)

    assert (pack.attempts, stored(pack)) == (1, [f"{pack.pk}-1.zip"])
    assert [notice.subject for notice in Notification.objects.all()] == ["Month-end pack October 2026 is ready"]


def test_generate_pack_does_nothing_while_a_report_is_being_made(media: None) -> None:
    pack = make_pack()
    first, *others = pack.members.all()
    for report in others:
        services.write_report(report)
    claim(first, "somebody", status="running")

    bundle(pack)

    assert (pack.status, pack.attempts) == (PackStatus.COLLECTING, 0)


def test_generate_pack_leaves_it_to_the_task_that_holds_it_until_its_lease_is_over(media: None) -> None:
    pack = make_pack()
    write_members(pack)
    claim(pack, "another", status="bundling")

    bundle(pack)
    while_held = pack.status
    end_lease(pack)
    bundle(pack)

    assert (while_held, pack.status, pack.attempts) == (PackStatus.BUNDLING, PackStatus.READY, 2)


def test_second_writer_of_a_pack_removes_its_own_file(media: None) -> None:
    pack = make_pack()
    write_members(pack)

    written = [packs.write_pack(pack), packs.write_pack(pack)]

    pack.refresh_from_db()
    assert (written, stored(pack)) == ([True, False], [Path(pack.file.path).name])


def test_last_report_s_end_queues_the_pack_and_so_does_a_failure(media: None, broker: Broker) -> None:
    pack = make_pack()
    first, second = pack.members.order_by("created_at", "pk")[:2]

    tasks.generate_report.apply(kwargs={"report_id": str(first.pk)})
    # It fails: there is no day after its last one.
    Report.objects.filter(pk=second.pk).update(start=date.max, end=date.max)
    tasks.generate_report.apply(kwargs={"report_id": str(second.pk)})

    queued = [message for message in broker.messages() if message[1] == "reports.tasks.generate_pack"]
    assert queued == [("reports", "reports.tasks.generate_pack", {"pack_id": str(pack.pk)})] * 2


def test_check_unfinished_packs_queues_what_was_left_behind(media: None, broker: Broker) -> None:
    left, held, collecting, ended = (make_pack() for _ in range(4))
    for pack in (left, held, ended):
        write_members(pack)
    claim(held, "another", status="bundling")
    packs.fail(Pack.objects.filter(pk=ended.pk), "No.")

    for _ in range(2):
        tasks.check_unfinished_packs()

    assert collecting.is_open
    assert broker.messages() == [("reports", "reports.tasks.generate_pack", {"pack_id": str(left.pk)})] * 2


def test_check_unfinished_packs_gives_up_what_died_too_often(media: None, broker: Broker) -> None:
    pack = make_pack()
    write_members(pack)
    Pack.objects.update(attempts=6)

    for _ in range(2):
        tasks.check_unfinished_packs()

    pack.refresh_from_db()
    assert (pack.status, pack.error, Notification.objects.count()) == (PackStatus.FAILED, packs.BROKEN, 1)


def test_pack_has_failed_when_its_task_failed_for_good(media: None, broker: Broker) -> None:
    pack = make_pack()
    write_members(pack)

    with patch.object(packs, "write_zip", side_effect=ValueError):
        bundle(pack)

    assert (pack.status, pack.error, Notification.objects.count()) == (PackStatus.FAILED, packs.BROKEN, 1)
    assert broker.lengths()["mail"] == 1


def test_same_pack_asked_for_twice_is_the_same_until_it_has_ended(staff: User) -> None:
    first, same, other = make_pack(staff), make_pack(staff), make_pack(staff, date(2026, 9, 1))
    packs.fail(Pack.objects.filter(pk=first.pk), "No.")

    again = make_pack(staff)

    assert (first == same, len({first, other, again})) == (True, 3)
    assert set(Counter(Report.objects.values_list("pack", flat=True)).values()) == {7}


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("pack_status_known", {"status": "lost", "due_at": None}),
        ("pack_month_is_its_first_day", {"month": date(2026, 10, 2)}),
        ("pack_ready_has_file", {"status": PackStatus.READY, "due_at": None}),
        ("pack_due_while_open", {"due_at": None}),
    ],
)
def test_database_refuses_what_must_never_be(constraint: str, fields: dict[str, Any]) -> None:
    make_pack()

    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Pack.objects.update(**fields)


def test_database_refuses_a_report_twice_in_a_pack() -> None:
    member = make_pack().members.all()[0]

    with pytest.raises(IntegrityError, match="report_once_in_pack"), transaction.atomic():
        make_report(pack=member.pack, kind=member.kind, format=member.format, start=member.start, end=member.end)


# --- Removal of files ---


def test_old_packs_and_files_without_a_row_are_removed_and_young_ones_stay(media: None) -> None:
    old, young = make_pack(), make_pack()
    for pack in (old, young):
        write_members(pack)
        bundle(pack)
    Pack.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(days=31))
    dead, living, by_hand = f"{uuid4()}-1.zip", f"{young.pk}-2.zip", "by-hand.zip"
    for name, age in ((dead, timedelta(days=2)), (living, timedelta()), (by_hand, timedelta(days=2))):
        path = Path(private_files().path(private_files().save(f"packs/{name}", ContentFile(b""))))
        os.utime(path, times=((timezone.now() - age).timestamp(),) * 2)

    removed = [packs.remove_old_files(), packs.remove_orphans(), packs.remove_old_files(), packs.remove_orphans()]

    old.refresh_from_db()
    assert (removed, old.status) == ([1, 1, 0, 0], PackStatus.EXPIRED)
    assert sorted(private_files().listdir("packs")[1]) == sorted([f"{young.pk}-1.zip", living, by_hand])


def test_pack_goes_with_the_account(media: None) -> None:
    made, being_made = make_pack(), make_pack(month=date(2026, 9, 1))
    Pack.objects.update(requested_by=made.requested_by)
    write_members(made)
    bundle(made)

    erasure.erase(make_erasure(made.requested_by))

    assert (Pack.objects.count(), private_files().listdir("packs")[1], being_made.is_open) == (0, [], True)


# --- Pages ---


def test_pack_form_makes_the_rows_and_leads_to_the_page(office: Client, staff: User) -> None:
    answer = office.post("/reports/packs/", {"month": "2026-10-01"})

    pack = Pack.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, pack.get_absolute_url())
    assert (pack.requested_by, pack.month, pack.members.count()) == (staff, date(2026, 10, 1), 7)


@pytest.mark.django_db(transaction=True)
def test_pack_form_queues_each_report(office: Client, broker: Broker) -> None:
    office.post("/reports/packs/", {"month": "2026-10-01"})

    ids = {kwargs["report_id"] for _, task, kwargs in broker.messages() if task == "reports.tasks.generate_report"}
    assert ids == {str(pk) for pk in Report.objects.values_list("pk", flat=True)}


@pytest.mark.parametrize("month", ["2999-01-01", "2026-10-02", "1900-01-01", "yesterday", "'; --"])
def test_pack_form_explains_when_the_month_is_impossible(month: str, office: Client) -> None:
    answer = office.post("/reports/packs/", {"month": month})

    assert (answer.status_code, Pack.objects.count()) == (422, 0)
    assert "Choose one of the months that are over." in answer.content.decode()


def test_pack_page_follows_along_until_it_has_ended(office: Client, staff: User) -> None:
    pack = make_pack(staff)
    before = office.get(pack.get_absolute_url()).content.decode()
    write_members(pack)
    bundle(pack)

    after = office.get(f"{pack.get_absolute_url()}status/").content.decode()

    asks = 'data-every="1"'
    assert (asks in before, "0 of its 7 reports" in before, asks in after) == (True, True, False)
    assert "Download the pack" in after


@pytest.mark.parametrize(("person", "status"), [("owner", 200), ("colleague", 404), ("customer", 403)])
@pytest.mark.parametrize("path", ["", "status/", "download/"])
def test_pack_is_its_owner_s_alone(path: str, person: str, status: int, login: Login, staff: User, media: None) -> None:
    people = {"owner": staff, "colleague": make_user(is_staff=True, is_superuser=True), "customer": make_user()}
    pack = make_pack(staff)
    write_members(pack)
    bundle(pack)

    answer = login(people[person]).get(f"{pack.get_absolute_url()}{path}", follow=True)

    assert answer.status_code == status


def test_list_of_reports_leaves_those_of_a_pack_to_its_page(office: Client, staff: User) -> None:
    own, pack = make_report(staff), make_pack(staff)

    assert list(office.get("/reports/").context["page"]) == [own]
    assert list(office.get(pack.get_absolute_url()).context["members"]) == list(pack.members.order_by(*IN_ORDER))


def test_pack_is_not_downloaded_before_it_is_ready(office: Client, staff: User) -> None:
    assert office.get(f"{make_pack(staff).get_absolute_url()}download/").status_code == 404


def test_list_of_packs_makes_as_many_queries_for_three_rows_as_for_one(office: Client, staff: User) -> None:
    counts = []
    for months in ((1,), (2, 3)):
        for month in months:
            make_pack(staff, date(2026, month, 1))
        with CaptureQueriesContext(connection) as queries:
            office.get("/reports/packs/")
        counts.append(len(queries))

    assert counts[0] == counts[1]


# --- In the real processes ---


def ready(pack: Pack) -> bool:
    pack.refresh_from_db()
    return pack.is_ready and Notification.objects.filter(mail_sent_at__isnull=False).exists()


def promise_holds(pack: Pack) -> None:
    """One ZIP, each file once and as its report's, one notice."""
    pack.refresh_from_db()
    reports = list(pack.members.order_by(*IN_ORDER))
    with zipfile.ZipFile(pack.file.path) as archive:
        assert archive.namelist() == [*files(pack), "index.csv"]
        assert [archive.read(name) for name in files(pack)] == [report.file.open().read() for report in reports]
    assert [report.status for report in reports] == [Status.READY] * 7
    assert (pack.missing_count, stored(pack)) == (0, [Path(pack.file.path).name])
    assert Notification.objects.count() == 1


@pytest.mark.proves("reports.tasks.generate_pack", "worker")
@pytest.mark.django_db(transaction=True)
def test_pack_is_made_once_although_messages_are_doubled_and_a_child_is_killed(shop: Shop) -> None:
    sell("2026-10-05")
    pack = make_pack(make_user(email="pack-killed@example.com", is_staff=True, is_superuser=True))

    with transaction.atomic(), connection.cursor() as cursor:
        # A writer of a report waits here until the lock is released.
        cursor.execute("LOCK TABLE orders_orderitem IN ACCESS EXCLUSIVE MODE")
        for report_id in packs.open_members(pack) * 2:
            tasks.generate_report.delay(report_id=str(report_id))
        at_work = wait_for(Report.objects.filter(status=Status.RUNNING).first, "a report at work")
        assert at_work is not None
        strike(at_work.claimed_by, signal.SIGKILL)
    wait_for(lambda: ready(pack), "the pack")
    shop.settle()

    assert sum(Report.objects.values_list("attempts", flat=True)) >= 8
    promise_holds(pack)
    mails = shop.sandbox("/mail.json?to=pack-killed@example.com")
    assert [mail["subject"] for mail in mails] == ["Month-end pack October 2026 is ready"]


@pytest.mark.django_db(transaction=True)
def test_pack_is_made_once_although_the_child_that_bundles_it_is_killed(shop: Shop) -> None:
    pack = make_pack()
    write_members(pack)
    path = Path(pack.members.order_by(*IN_ORDER)[0].file.path)
    content = path.read_bytes()
    path.unlink()
    # To open it is to wait, in the middle of the ZIP.
    os.mkfifo(path)

    for _ in range(2):
        tasks.generate_pack.delay(pack_id=str(pack.pk))
    at_work = wait_for(Pack.objects.filter(status=PackStatus.BUNDLING).first, "the bundling")
    assert at_work is not None
    # Not the other task, which has found the pack taken.
    strike(at_work.claimed_by, signal.SIGKILL)
    pipe = path.rename(path.with_suffix(".pipe"))
    path.write_bytes(content)
    # A worker that took over at once would wait at the pipe forever; opening it both ways never blocks.
    with os.fdopen(os.open(pipe, os.O_RDWR), "wb") as other_end:
        other_end.write(content)
    wait_for(lambda: ready(pack), "the pack")
    shop.settle()

    assert pack.attempts >= 2
    promise_holds(pack)


@pytest.mark.proves("reports.tasks.check_unfinished_packs", "worker")
@pytest.mark.django_db(transaction=True)
def test_pack_is_made_by_the_sweep_when_each_callback_was_lost(shop: Shop) -> None:
    PeriodicTask.objects.filter(task="reports.tasks.check_unfinished_reports").update(enabled=False)
    pack = make_pack()

    # Written here, so that no message queues the pack.
    write_members(pack)
    wait_for(lambda: ready(pack), "the pack")
    shop.settle()

    promise_holds(pack)


@pytest.mark.django_db(transaction=True)
def test_pack_is_asked_for_and_downloaded_through_the_web(shop: Shop, login: Login) -> None:
    client = login(make_user(is_staff=True, is_superuser=True))
    pack_url = client.post("/reports/packs/", {"month": "2026-10-01"})["Location"]
    wait_for(lambda: ready(Pack.objects.get()), "the pack")

    cookie = f"sessionid={client.cookies['sessionid'].value}"
    url = f"{shop_settings.SITE_URL}{pack_url}download/"
    with urlopen(Request(url, headers={"Cookie": cookie}), timeout=10) as answer:
        data = io.BytesIO(answer.read())

    assert zipfile.ZipFile(data).namelist() == [*files(Pack.objects.get()), "index.csv"]
    assert answer.headers["Content-Disposition"] == 'attachment; filename="month-end-2026-10.zip"'
