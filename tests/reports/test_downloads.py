"""Who gets a file, for how long, and which part of it."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import time_machine
from django.conf import settings
from django.test import Client
from django.utils import timezone

from accounts.models import User
from reports import downloads, services, tasks
from reports.models import Pack, Report, Status
from tests.factories import make_export, make_pack, make_report, make_user
from tests.shop import Shop, wait_for

pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


def make_file(person: User) -> Report:
    report = make_report(person)
    services.write_report(report)
    return Report.objects.get(pk=report.pk)


@pytest.fixture
def report(media: None, staff: User) -> Report:
    return make_file(staff)


def address(report: downloads.Row) -> str:
    return downloads.address(report, report.requested_by)


def content(report: Report) -> bytes:
    return Path(report.file.path).read_bytes()


def body(answer: Any) -> bytes:
    return b"".join(answer.streaming_content)


# --- Who ---


def test_download_leads_to_an_address_that_needs_no_cookies(report: Report, staff: User, login: Login) -> None:
    answer = login(staff).get(f"{report.get_absolute_url()}download/")
    file = Client().get(answer["Location"])

    assert answer.status_code == 302
    assert (file.status_code, body(file)) == (200, content(report))
    assert file["Content-Disposition"] == 'attachment; filename="order-lines-2026-01-01-2026-01-31.csv"'
    assert file["Content-Type"] == "text/csv"
    assert (file["Content-Length"], file["Accept-Ranges"]) == (str(report.size), "bytes")
    assert file["Cache-Control"] == answer["Cache-Control"] == "private, no-store"
    assert file["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(("seconds", "status"), [(-5, 200), (5, 410)])
def test_address_of_a_file_expires(seconds: int, status: int, report: Report) -> None:
    path, later = address(report), timezone.now() + settings.REPORT_LINK_LASTS + timedelta(seconds=seconds)

    with time_machine.travel(later):
        answer = Client().get(path)

    assert answer.status_code == status
    assert (b"This link has expired" in getattr(answer, "content", b"")) == (status == 410)


def test_address_of_a_file_cannot_be_guessed_or_changed(report: Report, media: None) -> None:
    other = make_file(make_user(is_staff=True))
    signed, moment, signature = downloads.sign(report, report.requested_by).split(":")

    paths = [
        str(report.pk),
        f"report-{report.requested_by_id}-{other.pk}:{moment}:{signature}",
        f"report-{other.requested_by_id}-{report.pk}:{moment}:{signature}",
        f"{signed}:{moment}:{signature[:-1]}",
        # As the release before gave them out.
        downloads.SIGNER.sign(f"report-{report.pk}"),
        "::",
        "x",
    ]

    assert [Client().get(f"/reports/files/{path}/").status_code for path in paths] == [404] * 7


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}, {"is_superuser": False}])
@pytest.mark.parametrize("kind", ["report", "pack"])
def test_address_of_a_file_is_worth_nothing_when_its_person_may_no_longer_read_it(
    kind: str, change: dict[str, bool], staff: User, request: pytest.FixtureRequest
) -> None:
    path = address(request.getfixturevalue(kind))
    before = Client().get(path).status_code
    User.objects.filter(pk=staff.pk).update(**change)

    assert (before, Client().get(path).status_code) == (200, 404)


def test_address_of_a_scheduled_report_is_each_reader_s_own(report: Report) -> None:
    readers = [make_user(is_staff=True, is_superuser=True) for _ in range(2)]
    report.readers.set(readers)
    paths = [downloads.address(report, person) for person in readers]

    report.readers.remove(readers[0])

    assert [Client().get(path).status_code for path in paths] == [404, 200]


def test_export_is_read_by_a_customer_while_the_account_is_open(media: None, customer: User) -> None:
    export = make_export(customer)
    services.write_report(export)
    path = address(export)
    before = Client().get(path).status_code
    User.objects.filter(pk=customer.pk).update(is_active=False)

    assert (before, Client().get(path).status_code) == (200, 404)


def test_file_that_was_removed_is_not_found(report: Report, media: None) -> None:
    path = address(report)
    Path(report.file.path).unlink()
    lost = Client().get(path)
    report.mark_expired()

    assert [lost.status_code, Client().get(path).status_code] == [404, 404]


# --- A pack ---


@pytest.fixture
def pack(media: None, staff: User) -> Pack:
    pack = make_pack(staff)
    for member in pack.members.all():
        services.write_report(member)
    tasks.generate_pack.apply(kwargs={"pack_id": str(pack.pk)})
    pack.refresh_from_db()
    return pack


def test_pack_is_downloaded_as_a_report_is(pack: Pack, staff: User, login: Login) -> None:
    whole = Path(pack.file.path).read_bytes()

    answer = login(staff).get(f"{pack.get_absolute_url()}download/")
    file = Client().get(answer["Location"])
    part = Client().get(answer["Location"], headers={"Range": "bytes=10-19", "If-Range": file["ETag"]})

    assert (answer.status_code, answer["Cache-Control"]) == (302, "private, no-store")
    assert (file.status_code, body(file), file["Content-Type"]) == (200, whole, "application/zip")
    assert file["Content-Disposition"] == 'attachment; filename="month-end-2026-10.zip"'
    assert (part.status_code, body(part)) == (206, whole[10:20])


def test_address_of_a_pack_expires_and_is_nobody_else_s(pack: Pack, report: Report, staff: User) -> None:
    path, signature = address(pack), downloads.sign(pack, staff).partition(":")[2]
    with time_machine.travel(timezone.now() + settings.REPORT_LINK_LASTS + timedelta(seconds=5)):
        late = Client().get(path)
    names = [f"pack-{staff.pk}-{report.pk}", f"report-{staff.pk}-{pack.pk}", "pack-x"]
    forged = [f"/reports/files/{name}:{signature}/" for name in names]

    found = [Client().get(other).status_code for other in forged]
    User.objects.filter(pk=staff.pk).update(is_staff=False)

    assert (late.status_code, found, Client().get(path).status_code) == (410, [404] * 3, 404)


def test_address_of_what_was_deleted_is_not_found(pack: Pack) -> None:
    path = address(pack)
    pack.delete()

    assert Client().get(path).status_code == 404


# --- Which part ---


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=5-100000", slice(5, None)),
        ("bytes=-100000", slice(0, None)),
        ("bytes=0-0", slice(0, 1)),
    ],
)
def test_part_of_a_file_is_sent(asked: str, part: slice, report: Report) -> None:
    whole = content(report)

    # As browsers do, which take any page compressed.
    answer = Client().get(address(report), headers={"Range": asked, "Accept-Encoding": "gzip"})

    start, stop, _ = part.indices(len(whole))
    assert (answer.status_code, body(answer)) == (206, whole[part])
    assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert answer["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=100000-", "bytes=-0", "bytes=100000-100001"])
def test_part_that_is_not_there_is_refused(asked: str, report: Report) -> None:
    answer = Client().get(address(report), headers={"Range": asked})

    assert (answer.status_code, answer["Content-Range"]) == (416, f"bytes */{report.size}")


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=9-3", "bytes=-", "bytes=x-y", "rows=0-1", "", f"bytes={'9' * 5000}-"]
)
def test_whole_file_is_sent_when_no_one_part_is_meant(asked: str, report: Report) -> None:
    answer = Client().get(address(report), headers={"Range": asked})

    assert (answer.status_code, body(answer)) == (200, content(report))


@pytest.mark.parametrize(("condition", "status"), [("ETag", 206), ("Last-Modified", 206), (None, 200)])
def test_part_is_sent_only_of_the_file_that_was_begun(condition: str | None, status: int, report: Report) -> None:
    begun = Client().head(address(report))
    headers = {"Range": "bytes=4-", "If-Range": begun[condition] if condition else '"another"'}

    answer = Client().get(address(report), headers=headers)

    assert answer.status_code == status


def test_head_answers_with_the_size_alone(report: Report) -> None:
    answer = Client().head(address(report), headers={"Range": "bytes=0-1"})

    assert (answer.status_code, answer["Content-Length"]) == (200, str(report.size))


# --- From the real web server ---


@pytest.mark.django_db(transaction=True)
def test_broken_download_is_resumed_through_the_web_server(shop: Shop) -> None:
    make_report(make_user(is_staff=True, is_superuser=True))
    wait_for(lambda: Report.objects.filter(status=Status.READY).exists(), "a worker to write it")
    report = Report.objects.get()
    url, whole = f"{settings.SITE_URL}{address(report)}", content(report)

    with urlopen(url, timeout=10) as answer:
        first, etag = answer.read(20), answer.headers["ETag"]
    with urlopen(Request(url, headers={"Range": "bytes=20-", "If-Range": etag}), timeout=10) as answer:
        rest, status = answer.read(), answer.status
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(url, headers={"Range": f"bytes={len(whole)}-"}), timeout=10)

    assert (status, first + rest) == (206, whole)
    assert (refused.value.code, refused.value.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
