"""Who is notified how a report ended: once, whichever process ended it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.db import DatabaseError, transaction
from django.test import Client

from accounts.models import Notification, User
from reports import outcomes, services, tasks
from reports.models import Report, Status
from tests.broker import Broker
from tests.factories import claim, make_report, make_user
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
# Its end is a day later than there are days.
BROKEN_DATES = {"start": "9999-12-30", "end": "9999-12-31"}


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


def told() -> list[tuple[str, str]]:
    return list(Notification.objects.order_by("pk").values_list("person__name", "subject"))


def run(report: Report) -> None:
    tasks.generate_report.apply(kwargs={"report_id": str(report.pk)})


@pytest.mark.parametrize(("posted", "wants"), [({"wants_mail": "on"}, True), ({}, False)])
def test_report_form_asks_whether_one_wants_a_mail(posted: dict[str, str], wants: bool, login: Login) -> None:
    office = login(make_user(is_staff=True, is_superuser=True))

    days = {"start": "2026-01-01", "end": "2026-01-31"}
    office.post("/reports/", {"kind": "sales", "format": "csv", **days, **posted})

    assert Report.objects.get().wants_mail is wants
    assert 'name="wants_mail"' in office.get("/reports/").content.decode()


@pytest.mark.parametrize("wants", [True, False])
def test_person_is_told_once_when_the_report_is_ready(wants: bool, staff: User, broker: Broker, media: None) -> None:
    report = make_report(staff, wants_mail=wants)

    for _ in range(2):
        run(report)

    notice = ("Sam", "Order lines, 1 Jan 2026 to 31 Jan 2026 is ready")
    assert told() == ([notice] if wants else [])
    message = ("mail", "accounts.tasks.send_notification_email", {"user_id": staff.pk})
    assert broker.messages() == ([message] if wants else [])


def test_person_is_told_with_the_reason_and_the_address_when_the_report_has_failed(
    staff: User, broker: Broker, media: None
) -> None:
    report = make_report(staff, wants_mail=True, **BROKEN_DATES)

    run(report)

    [notice] = Notification.objects.all()
    report.refresh_from_db()
    assert (report.status, notice.message, notice.url) == (Status.FAILED, report.error, report.get_absolute_url())
    assert notice.subject == "Order lines, 30 Dec 9999 to 31 Dec 9999 could not be made"
    assert broker.lengths()["mail"] == 1


def test_person_is_told_when_the_sweep_gives_the_report_up(staff: User, broker: Broker) -> None:
    make_report(staff, wants_mail=True, attempts=5)

    for _ in range(2):
        tasks.check_unfinished_reports()

    assert told() == [("Sam", "Order lines, 1 Jan 2026 to 31 Jan 2026 could not be made")]
    assert broker.lengths()["mail"] == 1


def test_person_is_told_once_when_two_end_the_report(staff: User) -> None:
    report = make_report(staff, wants_mail=True)

    ends = [
        outcomes.finish(report, "x.csv", row_count=1, size=1),
        outcomes.fail(Report.objects.filter(pk=report.pk), "No."),
    ]

    assert (ends, len(told())) == ([True, []], 1)


def test_notice_and_end_are_one_transaction(staff: User) -> None:
    report = make_report(staff, wants_mail=True)

    with transaction.atomic():
        outcomes.fail(Report.objects.filter(pk=report.pk), "No.")
        transaction.set_rollback(True)

    report.refresh_from_db()
    assert (report.status, told()) == (Status.QUEUED, [])


@pytest.mark.parametrize("end", ["finish", "fail"])
def test_report_does_not_end_without_its_notice(end: str, staff: User) -> None:
    report = claim(make_report(staff, wants_mail=True), status=Status.RUNNING)

    ends: dict[str, Callable[[], object]] = {
        "finish": lambda: outcomes.finish(report, "reports/a.csv", row_count=1, size=1),
        "fail": lambda: outcomes.fail(report.held(), "No."),
    }

    with patch.object(outcomes, "notify", side_effect=DatabaseError("gone")), pytest.raises(DatabaseError):
        ends[end]()

    report.refresh_from_db()
    assert (report.status, told()) == (Status.RUNNING, [])


def test_readers_are_told_unless_they_are_gone_or_may_not_read_it_any_more(staff: User) -> None:
    report = make_report()
    gone, demoted = make_user(is_staff=True, is_superuser=True), make_user(is_staff=False, is_superuser=True)
    # Staff still, but with another work.
    moved = make_user(is_staff=True)
    report.readers.set([staff, gone, demoted, moved])
    gone.mark_deleted()

    outcomes.fail(Report.objects.filter(pk=report.pk), "No.")

    assert [name for name, _ in told()] == ["Sam"]


def test_only_readers_open_the_report(login: Login, staff: User, media: None) -> None:
    report, other = make_report(), make_user(is_staff=True, is_superuser=True)
    services.write_report(report)
    report.readers.add(staff)

    answers = [
        login(person).get(f"{report.get_absolute_url()}{path}", follow=True).status_code
        for person in (staff, other)
        for path in ("", "status/", "download/")
    ]

    assert answers == [200] * 3 + [404] * 3
    assert report in login(staff).get("/reports/").context["page"]
    assert report not in login(other).get("/reports/").context["page"]


def test_reader_who_is_not_staff_any_more_is_refused(login: Login, staff: User) -> None:
    report = make_report()
    report.readers.add(staff)
    User.objects.update(is_staff=False)

    assert login(staff).get(report.get_absolute_url()).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_mail_comes_once_although_the_message_came_twice(shop: Shop) -> None:
    sam = make_user(name="Sam", email="sam-outcomes@example.com", is_staff=True, is_superuser=True)
    report = make_report(sam, wants_mail=True)

    for _ in range(2):
        tasks.generate_report.delay(report_id=str(report.pk))
    wait_for(lambda: Notification.objects.filter(mail_sent_at__isnull=False).exists(), "the mail")
    shop.settle()

    mails = shop.sandbox("/mail.json?to=sam-outcomes@example.com")
    assert [mail["subject"] for mail in mails] == ["Order lines, 1 Jan 2026 to 31 Jan 2026 is ready"]
