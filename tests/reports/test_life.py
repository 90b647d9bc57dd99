"""From *queued* to its end: whose turn it is, signs of life, cancelling, trying again."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import count
from pathlib import Path, PurePath
from threading import Barrier, Thread
from typing import Any, BinaryIO

import psutil
import pytest
import time_machine
from django.conf import settings
from django.core.files import File
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test import Client
from django.utils import timezone

from accounts.models import Notification, User
from durable.leases import LeaseLost
from myproject.alerting.models import Alert
from reports import kinds, services, tasks
from reports.formats import to_csv
from reports.kinds import Table
from reports.models import MAX_ATTEMPTS, PAUSES, Format, Kind, Report, SalesCount, Status, private_files
from reports.services import Progress
from tests.broker import Broker
from tests.factories import end, make_export, make_report, make_user
from tests.reports.conftest import largest_file
from tests.shop import Shop, is_somebody_waiting, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
SOON = timedelta(seconds=5)


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path
    return tmp_path / "reports"


def make_reports(person: User, number: int) -> list[Report]:
    """Ask for as many different reports, in this order."""
    return [make_report(person, start=date(2026, 1, 1 + Report.objects.count())) for _ in range(number)]


def again(report: Report) -> Report:
    return Report.objects.get(pk=report.pk)


def run(report: Report) -> None:
    tasks.generate_report.apply(kwargs={"report_id": str(report.pk)})


def claim() -> Report:
    report = Report.objects.claim_next()
    assert report is not None
    return report


def in_threads(number: int, work: Callable[[], Any]) -> list[Any]:
    """Do the same in as many threads at once, each with its own connection; return what came of it."""
    barrier, results = Barrier(number), []

    def one() -> None:
        try:
            barrier.wait()
            results.append(work())
        finally:
            connection.close()

    threads = [Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# --- Whose turn it is ---


def test_claim_begins_an_attempt() -> None:
    report, start = make_report(), timezone.now()

    taken = Report.objects.claim_next()

    assert taken == report
    assert taken is not None
    assert (taken.status, taken.claimed_by[:1], taken.attempts) == (Status.RUNNING, "/", 1)
    assert taken.due_at is not None
    assert start + settings.REPORT_LEASE <= taken.due_at <= timezone.now() + settings.REPORT_LEASE


def test_claim_takes_untried_rows_before_they_are_overdue() -> None:
    report = make_report(due_at=timezone.now() + SOON)

    assert claim() == report


@pytest.mark.parametrize(
    "fields",
    [
        {
            "status": Status.RUNNING,
            "claimed_by": "another/1",
            "attempts": 1,
            "due_at": timezone.now() + timedelta(hours=1),
        },
        {
            "status": Status.QUEUED,
            "claimed_by": "before/1",
            "attempts": 1,
            "due_at": timezone.now() + timedelta(hours=1),
        },
        {"status": Status.RUNNING, "attempts": MAX_ATTEMPTS},
        {"status": Status.FAILED, "due_at": None},
        {"status": Status.CANCELLED, "due_at": None},
    ],
    ids=["another's", "waits for its pause", "died too often", "failed", "cancelled"],
)
def test_claim_leaves_out_what_is_not_to_be_written_now(fields: dict[str, Any]) -> None:
    make_report(**fields)

    assert Report.objects.claim_next() is None


def test_claim_takes_over_what_gives_no_sign_of_life() -> None:
    report = make_report(status=Status.RUNNING, attempts=1, claimed_by="dead", due_at=timezone.now())

    assert (claim().pk, again(report).attempts, again(report).claimed_by != "dead") == (report.pk, 2, True)


def test_reports_take_turns_among_people() -> None:
    busy, other = make_user(is_staff=True), make_user(is_staff=True)
    first, second, third = make_reports(busy, 3)
    [late] = make_reports(other, 1)

    waiting = [first, late, second, third]

    assert list(Report.objects.in_turn()) == waiting
    assert [report.place for report in waiting] == [1, 2, 3, 4]


def test_place_counts_what_the_person_has_running() -> None:
    busy, other = make_user(is_staff=True), make_user(is_staff=True)
    make_reports(busy, 1)
    running = claim()
    [waits] = make_reports(busy, 1)
    [late] = make_reports(other, 1)

    assert [late.place, waits.place, running.place] == [1, 2, None]


def test_claims_keep_the_limit_of_a_person_and_pass_over_to_the_next() -> None:
    busy, other = make_user(is_staff=True), make_user(is_staff=True)
    mine = make_reports(busy, 4)
    [theirs] = make_reports(other, 1)

    taken = [Report.objects.claim_next() for number in range(4)]
    mine[0].refresh_from_db()
    end(mine[0], "No.")
    after = Report.objects.claim_next()

    assert taken == [mine[0], theirs, mine[1], None]
    assert after == mine[2]


@pytest.mark.django_db(transaction=True)
def test_claims_at_the_same_moment_keep_the_limit_and_the_order() -> None:
    busy, other = make_user(is_staff=True), make_user(is_staff=True)
    make_reports(busy, 6)
    make_reports(other, 1)

    taken = in_threads(6, lambda: Report.objects.claim_next())

    people = [report.requested_by_id for report in taken if report]
    assert (people.count(busy.pk), people.count(other.pk)) == (settings.REPORTS_AT_ONCE, 1)
    assert len({report.pk for report in taken if report}) == len(people)


def test_end_of_a_report_queues_notices(media: Path, broker: Broker) -> None:
    first, second = make_reports(make_user(is_staff=True), 2)

    run(second)

    assert (again(first).status, again(second).status) == (Status.READY, Status.QUEUED)
    assert broker.messages() == [("reports", "reports.tasks.generate_report", {"report_id": str(second.pk)})]


def test_end_of_a_report_that_went_wrong_queues_notices(
    media: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_reports(make_user(is_staff=True), 2)
    failing(monkeypatch, ValueError("secret"))

    run(second)

    assert again(first).status == Status.FAILED
    assert ("reports", "reports.tasks.generate_report", {"report_id": str(second.pk)}) in broker.messages()


# --- The same report ---


def test_report_asked_for_twice_is_the_same_while_it_is_open() -> None:
    person = make_user(is_staff=True)
    days: dict[str, Any] = {
        "kind": Kind.SALES,
        "format": Format.CSV,
        "start": date(2026, 1, 1),
        "end": date(2026, 1, 31),
    }

    first, second = services.ask_for(person, **days), services.ask_for(person, **days)
    others = [
        services.ask_for(make_user(), **days),
        services.ask_for(person, **days | {"end": date(2026, 1, 30)}),
        services.ask_for(person, **days | {"format": Format.XLSX}),
    ]
    first.mark_cancelled()
    third = services.ask_for(person, **days)

    assert first == second
    assert len({first, *others, third}) == 5


@pytest.mark.django_db(transaction=True)
def test_report_asked_for_at_the_same_moment_is_one() -> None:
    person = make_user()

    reports = in_threads(5, lambda: services.ask_for(person, kind=Kind.PERSONAL_DATA, format=Format.JSON))

    assert len(reports) == 5
    assert set(reports) == {Report.objects.get()}


def test_database_refuses_the_same_report_twice() -> None:
    report = make_report()

    with pytest.raises(IntegrityError, match="report_same_while_open"), transaction.atomic():
        make_report(report.requested_by)


# --- Signs of life, and the end of them ---


@pytest.mark.parametrize("end", ["mark_cancelled", "taken over"])
def test_attempt_that_has_lost_its_report_changes_nothing_more(end: str) -> None:
    make_report()
    old = claim()
    if end == "mark_cancelled":
        again(old).mark_cancelled()
    else:
        Report.objects.update(due_at=timezone.now())
        assert Report.objects.claim_next() == old
    before = Report.objects.values().get()

    changed = [
        old.mark_ready("x.csv", row_count=1, size=1),
        old.mark_put_off("No."),
        bool(old.held().close(Status.FAILED, error="No.")),
    ]
    with pytest.raises(LeaseLost):
        old.hold(rows_done=5, rows_total=10)

    assert changed == [False, False, False]
    assert Report.objects.values().get() == before


@time_machine.travel("2026-11-21 12:00 +0000", tick=False)
def test_sign_of_life_holds_the_report_and_says_how_far_it_is() -> None:
    make_report()
    report = claim()
    Report.objects.update(due_at=timezone.now(), started_at=timezone.now() - timedelta(seconds=10))

    report.hold(rows_done=100, rows_total=300)

    report.refresh_from_db()
    assert (report.rows_done, report.rows_total) == (100, 300)
    assert report.due_at is not None
    assert report.due_at > timezone.now()
    assert report.ends_at is not None
    assert report.ends_at - timezone.now() == timedelta(seconds=20)


def test_progress_never_goes_beyond_its_end() -> None:
    report = Report(started_at=timezone.now(), rows_done=500, rows_total=400)

    assert report.rows_expected == 500
    assert report.ends_at is not None
    assert report.ends_at <= timezone.now()


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that takes longer than a test waits for it."""

    def write(report: Report, table: Table, target: BinaryIO, progress: Progress) -> int:
        end = time.monotonic() + 20
        for number in count(1):
            progress(number)
            if time.monotonic() > end:
                break
        raise AssertionError

    monkeypatch.setattr(to_csv, "write", write)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", ["cancelled", "overtaken"])
@pytest.mark.usefixtures("endless")
def test_writer_stops_when_its_report_is(end: str, media: Path) -> None:
    make_report()
    report, results = claim(), []

    def write() -> None:
        results.append(services.write_report(report))
        connection.close()

    writer = Thread(target=write)
    writer.start()
    wait_for(lambda: again(report).rows_done, "a sign of life")
    if end == "cancelled":
        again(report).mark_cancelled()
    else:
        Report.objects.update(claimed_by="another", attempts=2)
    writer.join(10)

    assert results == [False]
    assert again(report).status == (Status.CANCELLED if end == "cancelled" else Status.RUNNING)
    assert not media.exists()


@contextmanager
def sales_locked() -> Iterator[None]:
    """Lock the sales: a query of them waits and returns no first row."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE orders_orderitem IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.django_db(transaction=True)
def test_query_that_has_given_no_row_yet_is_cancelled(media: Path) -> None:
    make_report()
    report = claim()
    results: list[int] = []

    def write() -> None:
        results.append(services.write_report(report))
        # The connection is as good as before.
        results.append(Report.objects.count())
        connection.close()

    writer = Thread(target=write)
    with sales_locked():
        writer.start()
        wait_for(is_somebody_waiting, "the query to wait")
        in_threads(1, again(report).mark_cancelled)
        writer.join(10)
        assert results == [False, 1]

    assert (again(report).status, media.exists()) == (Status.CANCELLED, False)


# One that gives no first row for ten minutes, and one that has to be sorted on the disk before it gives one.
SLEEPS = "SELECT 1 AS number FROM pg_sleep(600)"
SORTS = "SELECT number FROM generate_series(1, 100000) AS number ORDER BY md5(number::text)"


def order_lines_are(sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = kinds.KINDS[Kind.SALES]._replace(
        query=lambda _: (sql, ()), columns=[kinds.Column("number", "Number", kinds.Type.WHOLE)]
    )
    monkeypatch.setitem(kinds.KINDS, Kind.SALES, lines)


def is_asleep() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND wait_event = 'PgSleep'")
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_copy_that_has_given_no_row_yet_is_cancelled_without_an_alert(
    media: Path, monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    order_lines_are(SLEEPS, monkeypatch)
    report = make_report()

    writer = Thread(target=in_threads, args=(1, lambda: run(report)))
    writer.start()
    wait_for(is_asleep, "the copy to begin")
    again(report).mark_cancelled()
    writer.join(10)

    assert not writer.is_alive()
    assert (again(report).status, again(report).error, media.exists()) == (Status.CANCELLED, "", False)
    assert Alert.objects.count() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("limit", "sql"), [("statement_timeout = 200", SLEEPS), ("temp_file_limit = 500", SORTS)])
def test_report_that_the_database_cannot_copy_now_is_put_off(
    limit: str, sql: str, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_lines_are(sql, monkeypatch)
    report = make_report()

    with connection.cursor() as cursor:
        cursor.execute(f"SET {limit}; SET work_mem = 64")
    run(report)
    connection.close()

    assert (again(report).status, again(report).attempts) == (Status.QUEUED, 1)
    assert again(report).error == "The database did not answer."
    assert Alert.objects.count() == 0


def test_write_report_removes_what_a_dead_attempt_has_stored(media: Path) -> None:
    report = make_report(status=Status.RUNNING, attempts=2, claimed_by="dead")
    media.mkdir()
    for attempt in (1, 2):
        (media / f"{report.pk}-{attempt}.csv").write_bytes(b"half of it")

    services.write_report(claim())

    assert [path.name for path in media.iterdir()] == [f"{report.pk}-3.csv"]


# --- Lack of something, and errors for good ---


def make_long_export() -> Report:
    report = make_export()
    Notification.objects.bulk_create(
        Notification(person=report.requested_by, subject="s" * 100, message="m" * 900, mail_due_at=timezone.now())
        for _ in range(500)
    )
    return report


def test_report_that_the_disk_has_no_room_for_is_put_off(media: Path) -> None:
    report, start = make_long_export(), timezone.now()

    with largest_file(100_000):
        run(report)

    report.refresh_from_db()
    assert (report.status, report.attempts) == (Status.QUEUED, 1)
    assert report.error == "The file could not be written: File too large."
    assert report.due_at is not None
    assert start + PAUSES[0] <= report.due_at <= timezone.now() + PAUSES[0]
    assert not media.exists()


def test_report_is_tried_again_after_60_120_and_240_seconds_and_then_fails(media: Path) -> None:
    report, pauses = make_long_export(), []

    with largest_file(100_000), time_machine.travel(timezone.now(), tick=False) as clock:
        for _ in range(4):
            run(report)
            report.refresh_from_db()
            pauses.append(report.due_at - timezone.now() if report.due_at else None)
            clock.shift(pauses[-1] or 0)
        run(report)

    report.refresh_from_db()
    assert pauses == [*(timedelta(seconds=pause) for pause in (60, 120, 240)), None]
    assert (report.status, report.attempts) == (Status.FAILED, 4)
    assert report.error == "The file could not be written: File too large. We tried 4 times."
    assert [alert.subject for alert in Alert.objects.all()] == ["reports.tasks.generate_report gave up"]
    assert not media.exists()


def test_report_is_put_off_when_the_storage_refuses_its_file(media: Path) -> None:
    report = make_report()
    media.write_text("a file where the folder should be")

    run(report)

    report.refresh_from_db()
    assert (report.status, report.attempts) == (Status.QUEUED, 1)
    assert report.error.startswith("The storage did not take the file: ")
    media.unlink()
    Report.objects.update(due_at=timezone.now())
    run(report)
    report.refresh_from_db()
    assert (report.status, report.error, report.attempts) == (Status.READY, "", 2)


def test_report_whose_time_is_over_while_its_file_is_stored_says_so_and_leaves_none(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = make_report()

    def save(name: str, file: File) -> str:
        (media / PurePath(name).name).write_bytes(b"half of it")
        raise tasks.SoftTimeLimitExceeded

    media.mkdir()
    monkeypatch.setattr(private_files(), "save", save)
    run(report)

    assert (again(report).status, again(report).error) == (Status.QUEUED, "It took longer than 8 minutes.")
    assert list(media.iterdir()) == []


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def write(report: Report, table: Table, target: BinaryIO, progress: Progress) -> int:
        raise error

    monkeypatch.setattr(to_csv, "write", write)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "The worker ran out of memory."),
        (OperationalError("the connection is closed"), "The database did not answer."),
        (tasks.SoftTimeLimitExceeded(), "It took longer than 8 minutes."),
    ],
)
def test_shortage_is_said_in_words(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch, media: Path) -> None:
    report = make_report()
    failing(monkeypatch, error)

    run(report)

    assert (again(report).status, again(report).error) == (Status.QUEUED, reason)


def test_report_fails_at_once_when_trying_again_would_not_help(monkeypatch: pytest.MonkeyPatch, media: Path) -> None:
    report = make_report()
    failing(monkeypatch, ValueError("secret"))

    run(report)

    report.refresh_from_db()
    assert (report.status, report.attempts, report.due_at) == (Status.FAILED, 1, None)
    assert report.error == "The report could not be written (ValueError)."


@pytest.mark.parametrize(("attempts", "status"), [(MAX_ATTEMPTS - 1, Status.RUNNING), (MAX_ATTEMPTS, Status.FAILED)])
def test_sweep_gives_up_what_has_killed_its_worker_too_often(attempts: int, status: Status, broker: Broker) -> None:
    report = make_report(status=Status.RUNNING, attempts=attempts, claimed_by="dead")

    tasks.check_unfinished_reports()

    report.refresh_from_db()
    assert (report.status, len(broker.messages())) == (status, int(status == Status.RUNNING))
    assert ("its worker died 4 times" in report.error) == (status == Status.FAILED)


# --- The page ---


@pytest.fixture
def office(login: Login, staff: User) -> Client:
    return login(staff)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "place 1 in the queue"),
        ({"attempts": 1, "error": "The disk is full.", "due_at": timezone.now() + SOON}, "It is tried again at about"),
        ({"status": Status.RUNNING, "attempts": 1}, "A worker is writing it."),
        ({"status": Status.RUNNING, "rows_done": 1200}, "1,200 rows so far"),
        ({"status": Status.RUNNING, "rows_done": 1200, "rows_total": 5000}, "1,200 of about 5,000 rows"),
        ({"status": Status.FAILED, "error": "The disk is full.", "due_at": None}, "Try again"),
        ({"status": Status.CANCELLED, "due_at": None}, "It was cancelled. Nothing was kept."),
        ({"status": Status.CANCELLED, "due_at": None}, "Make it after all"),
    ],
)
def test_page_says_how_it_stands(fields: dict[str, Any], says: str, office: Client, staff: User) -> None:
    report = make_report(staff, **fields)

    page = office.get(report.get_absolute_url()).content.decode()

    assert says in page
    assert fields.get("error", "") in page
    assert (f"/reports/{report.pk}/cancel/" in page) == report.is_open


def test_page_says_when_it_will_be_ready(office: Client, staff: User) -> None:
    started_at = timezone.now() - timedelta(minutes=1)
    report = make_report(staff, status=Status.RUNNING, rows_done=100, rows_total=310, started_at=started_at)

    page = office.get(f"{report.get_absolute_url()}status/").content.decode()

    assert "ready 2\xa0minutes from now" in page


def test_report_is_cancelled_once_and_asked_for_again(office: Client, staff: User) -> None:
    report = make_report(staff)

    answers = [office.post(f"/reports/{report.pk}/cancel/", follow=True) for _ in range(2)]
    office.post(f"/reports/{report.pk}/again/")
    office.post(f"/reports/{report.pk}/again/")

    assert again(report).status == Status.CANCELLED
    assert ["The report had already ended." in answer.content.decode() for answer in answers] == [False, True]
    fresh = Report.objects.exclude(pk=report.pk).get()
    assert (fresh.status, fresh.start, fresh.end, fresh.attempts) == (Status.QUEUED, report.start, report.end, 0)


@pytest.mark.parametrize("path", ["cancel/", "again/"])
def test_report_of_another_is_neither_cancelled_nor_made_again(path: str, office: Client) -> None:
    report = make_report()

    answer = office.post(f"{report.get_absolute_url()}{path}")

    assert (answer.status_code, Report.objects.get().status) == (404, Status.QUEUED)
    assert office.get(f"{report.get_absolute_url()}{path}").status_code == 405


# --- With the real processes ---


def files(report: Report) -> list[str]:
    return [path.name for path in (Path(settings.MEDIA_ROOT) / "reports").glob(f"{report.pk}*")]


def beats(report: Report) -> Callable[[], bool]:
    """Tell whether a worker has given a sign of life since now."""
    before = again(report).due_at
    return lambda: again(report).due_at > before  # type: ignore[operator]


@pytest.mark.django_db(transaction=True)
def test_report_of_a_killed_child_is_taken_up_by_the_sweep(shop: Shop) -> None:
    report = make_report()

    with sales_locked():
        tasks.generate_report.delay(report_id=str(report.pk))
        wait_for(lambda: again(report).status == Status.RUNNING, "a worker to begin")
        # It waits for its first row for longer than the lease, and is not taken over while it lives.
        until = timezone.now() + settings.REPORT_LEASE
        wait_for(lambda: timezone.now() > until, "the lease to pass")
        wait_for(beats(report), "a sign of life")
        assert again(report).attempts == 1
        for child in psutil.Process(shop.running["worker"].pid).children():
            child.send_signal(signal.SIGKILL)
    wait_for(lambda: again(report).status == Status.READY, "another worker to write it")

    assert (again(report).attempts, files(report)) == (2, [f"{report.pk}-2.csv"])
    assert (Path(settings.MEDIA_ROOT) / "reports" / f"{report.pk}-2.csv").stat().st_size == again(report).size


@pytest.mark.django_db(transaction=True)
def test_report_cancelled_while_it_is_written_ends_in_the_worker(shop: Shop) -> None:
    # The daily sales have nothing to count, or else they would wait for the lock as well.
    SalesCount.mark_counted(timezone.now())
    report = make_report()

    with sales_locked():
        # No message: the sweep finds it.
        wait_for(is_somebody_waiting, "the worker's query to wait")
        in_threads(1, again(report).mark_cancelled)
        wait_for(shop.is_idle, "the worker to stop")

    assert (again(report).status, files(report)) == (Status.CANCELLED, [])


@pytest.mark.django_db(transaction=True)
def test_report_cancelled_while_no_worker_runs_is_never_written(shop: Shop) -> None:
    shop.kill("worker")
    report, other = make_reports(make_user(is_staff=True), 2)
    tasks.generate_report.delay(report_id=str(report.pk))

    report.mark_cancelled()
    shop.start("worker")
    wait_for(lambda: again(other).status == Status.READY, "the other report")

    assert (again(report).status, again(report).attempts, files(report)) == (Status.CANCELLED, 0, [])
