"""What is deleted at night, what is kept, and what it costs where there are many rows."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Task
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import connection, connections
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_results.models import GroupResult, TaskResult

from accounts.models import AccountMail, Notification, User
from accounts.tasks import clear_old_mail
from myproject import tasks
from myproject.alerting.models import Alert
from myproject.alerting.tasks import ALERTS_KEPT
from myproject.storage import clean_ups
from orders import thumbnails
from orders.models import (
    Difference,
    Digest,
    ImportStatus,
    InventoryDifference,
    InventorySync,
    Kind,
    OrderEvent,
    Product,
    ProductImport,
    RejectedRow,
    SyncStatus,
    week_of,
)
from orders.models.imports import IMPORT_KEPT
from orders.models.inventory import KEPT as SYNC_KEPT
from orders.tasks import DIGESTS_KEPT, clear_old_events, clear_old_files
from reports import services
from reports.models import Report, Status
from reports.tasks import clear_old_reports
from tests.factories import (
    make_alert,
    make_digest,
    make_import,
    make_mail,
    make_notification,
    make_product,
    make_report,
    make_user,
    place_order,
)
from tests.shop import Shop, wait_for

pytestmark = pytest.mark.django_db

YEAR = timedelta(days=365)
DAY = timedelta(days=1)
MANY = 200_000
ALL: list[Task] = [
    *(tasks.clear_task_results, tasks.clear_sessions, tasks.clear_old_alerts),
    *(clear_old_mail, clear_old_events, clear_old_files, clear_old_reports),
]


def ago(age: timedelta) -> Any:
    return timezone.now() - age


def old_results(count: int) -> None:
    TaskResult.objects.bulk_create(TaskResult(task_id=f"old-{number}") for number in range(count))
    TaskResult.objects.update(date_done=ago(timedelta(days=8)))


def old_report(age: timedelta, person: User | None = None) -> Report:
    report = make_report(person)
    services.write_report(report)
    Report.objects.filter(pk=report.pk).update(finished_at=ago(age))
    return Report.objects.get(pk=report.pk)


def old_digest(age: timedelta, **fields: Any) -> Digest:
    """A digest of the week that was that long ago; it was sent unless `fields` say otherwise."""
    digest = make_digest()
    ended = {"mail_due_at": None, "mail_sent_at": ago(age)}
    Digest.objects.filter(pk=digest.pk).update(week=week_of(ago(age)), **ended | fields)
    return digest


def old_sync(age: timedelta) -> InventorySync:
    """A run that found one difference."""
    run = InventorySync.objects.open_one()
    InventoryDifference.objects.create(sync=run, kind=Difference.UNKNOWN_HERE, sku="A-1")
    InventorySync.objects.close(SyncStatus.SUCCEEDED)
    InventorySync.objects.filter(pk=run.pk).update(finished_at=ago(age))
    return run


def old_import(age: timedelta, **fields: Any) -> ProductImport:
    """An import that failed, with one rejected line, unless `fields` say otherwise."""
    ended = {"status": ImportStatus.FAILED, "due_at": None, "finished_at": ago(age)}
    product_import = make_import("x", **ended | fields)
    RejectedRow.objects.create(product_import=product_import, line=2, reason="price is negative")
    return product_import


def orphan(name: str, age: timedelta, folder: str = "reports") -> Path:
    path = Path(settings.MEDIA_ROOT) / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    moment = time.time() - age.total_seconds()
    os.utime(path, (moment, moment))
    return path


# --- What is deleted, and what is kept; each twice ---


def test_clear_task_results_takes_groups_too() -> None:
    GroupResult.objects.create(group_id="new")
    GroupResult.objects.create(group_id="old")
    GroupResult.objects.filter(group_id="old").update(date_done=ago(timedelta(days=8)))

    for _ in range(2):
        tasks.clear_task_results()

    assert list(GroupResult.objects.values_list("group_id", flat=True)) == ["new"]


@pytest.mark.proves("accounts.tasks.clear_old_mail", "twice")
def test_clear_old_mail_keeps_what_is_owed_or_new() -> None:
    old = ago(31 * DAY)
    owed = make_mail(created_at=old)
    new = make_mail(created_at=ago(29 * DAY), mail_sent_at=ago(29 * DAY))
    make_mail(created_at=old, mail_sent_at=old)
    make_mail(created_at=old, mail_due_at=None, mail_error="550 No such person")

    for _ in range(2):
        clear_old_mail()

    assert list(AccountMail.objects.order_by("pk")) == [owed, new]


def test_clear_old_mail_keeps_notices_for_a_year() -> None:
    owed, new = make_notification(), make_notification()
    sent, failed = make_notification(), make_notification()
    Notification.objects.exclude(pk=new.pk).update(created_at=ago(YEAR + DAY))
    Notification.objects.filter(pk=new.pk).update(created_at=ago(YEAR - DAY), mail_sent_at=ago(YEAR - DAY))
    Notification.objects.mark_mails_sent([sent])
    failed.mark_mail_failed("550 No such person")

    for _ in range(2):
        clear_old_mail()

    assert list(Notification.objects.order_by("pk")) == [owed, new]


@pytest.mark.proves("myproject.tasks.clear_old_alerts", "twice")
def test_clear_old_alerts_keeps_what_is_due_or_has_happened_lately() -> None:
    due, new, _ = (make_alert(cause=cause) for cause in ("due", "new", "old"))
    Alert.objects.update(first_at=ago(YEAR), last_at=ago(ALERTS_KEPT + DAY))
    Alert.objects.exclude(pk=due.pk).update(due_at=None)
    Alert.objects.filter(pk=new.pk).update(last_at=ago(ALERTS_KEPT - DAY))

    for _ in range(2):
        tasks.clear_old_alerts()

    assert list(Alert.objects.order_by("pk")) == [due, new]


@pytest.mark.proves("orders.tasks.clear_old_events", "twice")
@pytest.mark.parametrize("kind", Kind)
def test_clear_old_events_keeps_the_audit_trail(kind: Kind) -> None:
    order = place_order()
    order.events.all().delete()
    for age in (YEAR - DAY, YEAR + DAY):
        OrderEvent.objects.create(order=order, kind=kind, created_at=ago(age))

    for _ in range(2):
        clear_old_events()

    is_noise = kind in {Kind.RETRY, Kind.REQUEUED, Kind.INTERRUPTED}
    assert order.events.count() == (1 if is_noise else 2)


def test_clear_old_events_takes_digests_that_ended_ten_weeks_ago() -> None:
    age = DIGESTS_KEPT + 7 * DAY
    kept = [old_digest(DIGESTS_KEPT), old_digest(age, mail_sent_at=None, mail_due_at=timezone.now())]
    old_digest(age)
    old_digest(age, mail_sent_at=None, mail_error="550 No such person")
    old_digest(age, mail_sent_at=None, skip_reason="nothing")

    for _ in range(2):
        clear_old_events()

    assert list(Digest.objects.order_by("pk")) == kept


def test_clear_old_events_takes_runs_of_the_sync_with_their_differences() -> None:
    kept = [old_sync(SYNC_KEPT - DAY)]
    old_sync(SYNC_KEPT + DAY)
    kept.append(InventorySync.objects.open_one())

    for _ in range(2):
        clear_old_events()

    assert list(InventorySync.objects.order_by("pk")) == kept
    assert list(InventoryDifference.objects.values_list("sync", flat=True)) == [kept[0].pk]


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path
    return tmp_path / "reports"


@pytest.mark.proves("orders.tasks.clear_old_files", "twice")
def test_clear_old_files_takes_imports_that_ended_with_their_lines_and_files(media: Path) -> None:
    kept = [old_import(IMPORT_KEPT - DAY), old_import(DAY, status="queued", due_at=ago(YEAR), finished_at=None)]
    old = [old_import(IMPORT_KEPT + DAY) for _ in range(7)]

    for _ in range(2):
        clear_old_files()

    assert set(ProductImport.objects.all()) == set(kept)
    assert set(RejectedRow.objects.values_list("product_import", flat=True)) == {row.pk for row in kept}
    assert [Path(row.file.path).exists() for row in (*kept, *old)] == [True] * 2 + [False] * 7


def test_clear_old_files_removes_uploads_without_a_row_but_nothing_that_is_new_named_or_not_ours(media: Path) -> None:
    named = make_import("x")
    name = default_storage.save(f"imports/{named.pk}.csv", ContentFile(b"x"))
    ProductImport.objects.filter(pk=named.pk).update(file=name)
    kept = [
        orphan(Path(name).name, 9 * DAY, "imports"),
        orphan(f"{make_report().pk}.csv", DAY / 2, "imports"),
        orphan("by-hand.csv", 9 * DAY, "imports"),
    ]
    gone = orphan(f"{make_report().pk}.csv", 2 * DAY, "imports")

    for _ in range(2):
        clear_old_files()

    assert [path.exists() for path in (gone, *kept)] == [False, True, True, True]


def test_file_that_cannot_be_removed_keeps_no_other(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [orphan(f"{make_report().pk}.csv", 2 * DAY, "imports") for _ in range(3)]
    remove = os.remove

    def refuse_one(path: str) -> None:
        if Path(path) == paths[1]:
            raise PermissionError(f"not permitted: {path}")
        remove(path)

    monkeypatch.setattr(os, "remove", refuse_one)

    clear_old_files()

    assert [path.exists() for path in paths] == [False, True, False]


def test_clear_old_files_removes_pictures_that_no_product_names(media: Path) -> None:
    product, digest, lost = make_product(), "a" * 32, "b" * 32
    thumbnails.use_picture(product, thumbnails.store_picture(ContentFile(b"x"), "jpg"))
    original = Product.objects.get(pk=product.pk).picture.name
    Product.objects.filter(pk=product.pk).update(thumbnails=digest)
    kept = [
        orphan(Path(str(original)).name, 9 * DAY, "pictures"),
        *(orphan(f"{digest}-{width}.webp", 9 * DAY, "thumbnails") for width in (400, 800, 1200)),
        orphan(f"{lost}-800.webp", DAY / 2, "thumbnails"),
    ]
    gone = [
        orphan(f"{make_report().pk}.jpg", 2 * DAY, "pictures"),
        *(orphan(name, 2 * DAY, "thumbnails") for name in (f"{lost}-400.webp", f"{digest}-400.webp.part")),
    ]

    for _ in range(2):
        clear_old_files()

    assert [path.exists() for path in kept] == [True] * len(kept)
    assert [path.exists() for path in gone] == [False] * len(gone)


@pytest.mark.proves("reports.tasks.clear_old_reports", "twice")
def test_clear_old_reports_removes_the_file_and_says_so_on_the_row(media: Path) -> None:
    kept, old = old_report(settings.REPORT_KEPT - DAY), old_report(settings.REPORT_KEPT + DAY)

    for _ in range(2):
        clear_old_reports()

    old.refresh_from_db()
    assert (old.status, old.file.name, old.row_count) == (Status.EXPIRED, "", 0)
    assert [path.name for path in media.iterdir()] == [Path(str(kept.file.name)).name]


def test_clear_old_reports_removes_orphans_but_nothing_that_is_new_named_or_not_ours(media: Path) -> None:
    named = old_report(DAY)
    orphan(Path(str(named.file.name)).name, 9 * DAY)
    gone = [orphan(f"{make_report().pk}.csv", 2 * DAY), orphan(f"{named.pk}_2nd.csv", 2 * DAY)]
    kept = [orphan(f"{make_report().pk}.csv", DAY / 2), orphan("by-hand.csv", 9 * DAY)]

    for _ in range(2):
        clear_old_reports()

    assert [path.exists() for path in (*gone, *kept)] == [False, False, True, True]
    assert Path(named.file.path).exists()


def test_file_whose_removal_was_cut_short_is_removed_the_next_time(media: Path) -> None:
    report = old_report(settings.REPORT_KEPT + DAY)
    path = orphan(Path(str(report.file.name)).name, 2 * DAY)
    report.mark_expired()

    clear_old_reports()

    assert not path.exists()


def test_clean_ups_work_where_no_file_was_ever_written(media: Path) -> None:
    clear_old_reports()
    clear_old_files()

    assert not media.exists()


def test_page_of_an_expired_report_offers_to_make_it_again(
    media: Path, login: Callable[[User], Client], staff: User
) -> None:
    client, report = login(staff), old_report(settings.REPORT_KEPT + DAY, staff)
    clear_old_reports()

    page = client.get(report.get_absolute_url()).content.decode()
    answer = client.post(f"{report.get_absolute_url()}again/")
    again = Report.objects.exclude(pk=report.pk).get()

    assert "The file was removed" in page
    assert "Make it again" in page
    assert client.get(f"{report.get_absolute_url()}download/").status_code == 404
    assert answer["Location"] == again.get_absolute_url()
    assert (again.kind, again.start, again.end) == (report.kind, report.start, report.end)


def test_download_is_not_found_when_the_file_is_lost(media: Path, login: Callable[[User], Client], staff: User) -> None:
    report = old_report(DAY, staff)
    Path(report.file.path).unlink()

    assert login(staff).get(f"{report.get_absolute_url()}download/", follow=True).status_code == 404


# --- Where there are many ---


def test_each_statement_deletes_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_ups, "CHUNK", 10)
    old_results(35)

    with CaptureQueriesContext(connection) as queries:
        deleted = clean_ups.delete_in_chunks(TaskResult.objects.order_by("date_done"))

    assert (deleted, len(queries)) == (35, 4)
    assert all("LIMIT 10" in query["sql"] and len(query["sql"]) < 500 for query in queries)


def test_what_was_deleted_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "myproject.storage.clean_ups")
    old_results(3)

    tasks.clear_task_results()

    assert "Deleted 3 old rows of django_celery_results.TaskResult" in caplog.text


MANY_ROWS: dict[str, tuple[Callable[[], QuerySet[Any]], str]] = {
    "results": (
        lambda: TaskResult.objects.filter(date_done__lt=ago(7 * DAY)).order_by("date_done"),
        "INSERT INTO django_celery_results_taskresult (task_id, status, content_type, content_encoding, date_created,"
        " date_done) SELECT g::text, 'SUCCESS', '', '', now(), now() - interval '9 days' + g * interval '1 second'"
        " FROM generate_series(1, %s) g",
    ),
    "sessions": (
        lambda: Session.objects.filter(expire_date__lt=timezone.now()).order_by("expire_date"),
        "INSERT INTO django_session (session_key, session_data, expire_date)"
        " SELECT g::text, '', now() - interval '1 day' + g * interval '1 second' FROM generate_series(1, %s) g",
    ),
    "digests": (
        lambda: Digest.objects.mail_ended().filter(week__lt=ago(DIGESTS_KEPT).date()).order_by("week", "person_id"),
        "INSERT INTO orders_digest (person_id, week, mail_sent_at, mail_error, skip_reason)"
        " SELECT (SELECT min(id) FROM accounts_user), '2000-01-03'::date + g, now(), '', ''"
        " FROM generate_series(1, %s) g",
    ),
    "events": (
        lambda: OrderEvent.objects.noise_before(ago(YEAR)).order_by("kind", "created_at"),
        "INSERT INTO orders_orderevent (order_id, kind, detail, task_id, worker, created_at)"
        " SELECT (SELECT min(id) FROM orders_order), CASE WHEN g %% 50 = 0 THEN 'retry' ELSE 'placed' END, '', '', '',"
        " now() - interval '366 days' + g * interval '1 second' FROM generate_series(1, %s) g",
    ),
}


@pytest.mark.parametrize("name", MANY_ROWS)
def test_chunk_is_found_and_deleted_by_index_where_there_are_many_rows(name: str) -> None:
    rows, insert = MANY_ROWS[name]
    place_order()
    with connection.cursor() as cursor:
        cursor.execute(insert, [MANY])
        cursor.execute("ANALYZE")
        statement, params = clean_ups.deletion(rows())
        cursor.execute(f"EXPLAIN {statement}", params)
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert "Seq Scan" not in plan
    assert plan.count("Index") >= 2


# --- Changed meanwhile, or cut short ---


@pytest.mark.django_db(transaction=True)
def test_row_that_somebody_changes_at_this_moment_is_left_alone() -> None:
    quiet, wakes = make_alert(cause="quiet"), make_alert(cause="wakes")
    Alert.objects.update(due_at=None, last_at=ago(YEAR))
    other = connections.create_connection("default")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("UPDATE myproject_alert SET last_at = now() WHERE id = %s", [wakes.pk])
        with connection.cursor() as cursor:
            # Rather than waiting forever for what holds the row.
            cursor.execute("SET lock_timeout = '2s'")
        tasks.clear_old_alerts()
        other.commit()
    finally:
        other.close()
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")

    assert list(Alert.objects.all()) == [wakes]
    assert quiet != wakes


@pytest.mark.proves(
    "orders.tasks.clear_old_events",
    "orders.tasks.clear_old_files",
    "accounts.tasks.clear_old_mail",
    "reports.tasks.clear_old_reports",
    "myproject.tasks.clear_task_results",
    "myproject.tasks.clear_sessions",
    "myproject.tasks.clear_old_alerts",
    "worker",
)
@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_clean_up_is_run_by_a_real_worker(task: Task, shop: Shop) -> None:
    report = make_report(make_user(is_staff=True))
    Report.objects.update(status=Status.READY, file=f"reports/{report.pk}.csv", due_at=None, finished_at=ago(YEAR))
    old_results(3)
    Session.objects.create(session_key="old", session_data="", expire_date=ago(DAY))
    make_mail(created_at=ago(YEAR), mail_due_at=None)
    make_alert()
    Alert.objects.update(due_at=None, last_at=ago(YEAR))
    OrderEvent.objects.create(order=place_order(), kind=Kind.RETRY, created_at=ago(2 * YEAR))
    old_import(YEAR)
    left: dict[Task, Callable[[], int]] = {
        tasks.clear_task_results: TaskResult.objects.filter(task_id__startswith="old").count,
        tasks.clear_sessions: Session.objects.filter(session_key="old").count,
        tasks.clear_old_alerts: Alert.objects.filter(cause="Lamp").count,
        clear_old_mail: AccountMail.objects.count,
        clear_old_events: OrderEvent.objects.filter(kind=Kind.RETRY, created_at__lt=ago(YEAR)).count,
        clear_old_files: ProductImport.objects.count,
        clear_old_reports: Report.objects.filter(status=Status.READY).count,
    }
    before = left[task]()

    for _ in range(2):
        task.delay()

    wait_for(lambda: left[task]() == 0, task.name)
    assert before > 0


def test_clean_up_that_is_cut_ends_quietly_and_goes_on_the_next_time(shop: Shop) -> None:
    old_results(3)
    mark = len((settings.VAR_DIR / "processes.log").read_text())
    lines = lambda: (settings.VAR_DIR / "processes.log").read_text()[mark:].splitlines()  # noqa: E731
    other = connections.create_connection("default")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("LOCK TABLE django_session IN ACCESS EXCLUSIVE MODE")
        sent = tasks.clear_sessions.apply_async(soft_time_limit=1, time_limit=30)
        story = lambda event: [line for line in lines() if event in line and sent.id in line]  # noqa: E731
        wait_for(lambda: any("Time is up for sessions" in line for line in lines()), "the soft limit")
        wait_for(lambda: story("task_succeeded"), "a quiet end")
    finally:
        other.close()
    Session.objects.create(session_key="old", session_data="", expire_date=ago(DAY))

    tasks.clear_sessions.delay()

    wait_for(lambda: not Session.objects.filter(session_key="old").exists(), "the next run")
    assert not story("task_retrying")


def test_schedules_are_in_the_admin_s_table_for_each_clean_up() -> None:
    call_command("sync_schedules")

    assert {task.name for task in ALL} <= set(PeriodicTask.objects.filter(enabled=True).values_list("task", flat=True))
