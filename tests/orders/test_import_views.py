"""The pages of the import, and the import within the real processes."""

import csv
import http.client
import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import states
from django.conf import settings as shop_settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_celery_beat.models import PeriodicTask
from django_celery_results.models import TaskResult
from playwright.sync_api import Page, expect

from accounts.models import Notification, User
from orders import tasks
from orders.models import ImportStatus, Product, ProductImport
from tests.broker import Broker
from tests.factories import PASSWORD, claim, make_import, make_user
from tests.shop import Shop, strike, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
HEADER = "name,sku,price,stock,category\n"
BAD = "=HYPERLINK(1),B-1,-1,1,X\n"
SAMPLE = shop_settings.BASE_DIR / "static" / "sample-products.csv"


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def office(login: Login, staff: User, media: None) -> Client:
    return login(staff)


def send(client: Client, text: str = f"{HEADER}Lamp,A-1,1,1,X\n", token: Any = None, name: str = "lamps.csv") -> Any:
    file = SimpleUploadedFile(name, text.encode())
    return client.post("/imports/", {"file": file, "token": token or uuid4()})


def run(row: ProductImport) -> None:
    tasks.import_products.apply(kwargs={"import_id": str(row.pk)})


# --- The form ---


def test_import_form_makes_the_row_and_leads_to_its_page(office: Client, staff: User) -> None:
    answer = send(office)

    row = ProductImport.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, row.get_absolute_url())
    assert (row.requested_by, row.original_name, row.size, row.status) == (staff, "lamps.csv", 45, ImportStatus.QUEUED)
    assert row.file.name == f"imports/{row.pk}.csv"


@pytest.mark.django_db(transaction=True)
def test_import_form_sent_twice_is_one_import(office: Client, broker: Broker) -> None:
    token = uuid4()

    answers = {send(office, token=token)["Location"] for _ in range(2)}

    row = ProductImport.objects.get()
    assert answers == {row.get_absolute_url()}
    assert set(map(repr, broker.messages())) == {
        repr(("reports", "orders.tasks.import_products", {"import_id": str(row.pk)}))
    }


@pytest.mark.django_db(transaction=True)
def test_import_form_works_when_the_broker_is_away(office: Client, broker: Broker) -> None:
    broker.use("redis://127.0.0.1:1/0")

    assert send(office).status_code == 302


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({}, "file", "This field is required."),
        ({"file": SimpleUploadedFile("x.csv", b"")}, "file", "The submitted file is empty."),
        ({"file": "no file"}, "file", "This field is required."),
        ({"file": SimpleUploadedFile("x.csv", b"x" * 1001)}, "file", "The file has 1001 bytes; at most 1000 bytes"),
        ({"file": SimpleUploadedFile("x.csv", b"x"), "token": "x"}, "token", "Enter a valid UUID."),
    ],
)
def test_import_form_explains_what_it_refuses(
    fields: dict[str, Any], field: str, message: str, office: Client, settings: Any
) -> None:
    settings.IMPORT_MAX_BYTES = 1000

    answer = office.post("/imports/", {"token": uuid4()} | fields)

    shown = answer.content.decode().replace("\xa0", " ")
    assert (answer.status_code, ProductImport.objects.count()) == (422, 0)
    assert list(answer.context["form"].errors) == [field]
    assert message in shown


def test_import_with_an_evil_name_is_stored_under_ours(office: Client) -> None:
    send(office, name=f"../../<script>{'x' * 200}.csv")

    row = ProductImport.objects.get()
    assert row.file.name == f"imports/{row.pk}.csv"
    assert b"<script>x" not in office.get(row.get_absolute_url()).content


def test_huge_request_is_refused_unread(office: Client) -> None:
    class Unread(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError("this must not be read")

    request: dict[str, Any] = {"CONTENT_LENGTH": str(2**31), "wsgi.input": Unread()}
    answer = office.generic("POST", "/imports/", content_type="multipart/form-data", **request)

    assert answer.status_code == 413
    assert "larger than 51.0" in answer.content.decode()


@pytest.mark.parametrize("length", ["", "x", "-1"])
def test_request_without_a_sensible_length_is_answered(length: str, office: Client) -> None:
    assert office.get("/imports/", CONTENT_LENGTH=length).status_code == 200


# --- Pages ---


PATHS = ["/imports/", "/imports/{pk}/", "/imports/{pk}/status/", "/imports/{pk}/rejected.csv"]


@pytest.mark.parametrize("path", PATHS)
def test_imports_are_for_staff(path: str, office: Client, login: Login, customer: User) -> None:
    address = path.format(pk=make_import().pk)

    assert [office.get(address).status_code, login(customer).get(address).status_code] == [200, 403]
    assert Client().get(address).status_code == 302


@pytest.mark.parametrize("path", PATHS[1:])
def test_import_is_not_found_when_there_is_none(path: str, office: Client) -> None:
    assert office.get(path.format(pk=uuid4())).status_code == 404


def test_import_page_follows_along_until_it_has_ended(office: Client) -> None:
    row = make_import(f"{HEADER}Lamp,A-1,1,1,X\n{BAD}")
    before = office.get(row.get_absolute_url()).content.decode()
    claim(row, status="running").mark_checked(2)
    during = office.get(f"{row.get_absolute_url()}status/").content.decode()
    ProductImport.objects.update(status=ImportStatus.QUEUED, claimed_by="")
    run(row)

    after = office.get(row.get_absolute_url()).content.decode()

    assert ["data-live" in page for page in (before, during, after)] == [True, True, False]
    assert "0 of 2 rows" in during
    assert "1 new, 0 updated, 1 rejected" in after
    assert "price is negative" in after


def test_import_page_says_why_a_file_was_refused(office: Client) -> None:
    row = make_import("name,sku\nLamp,<b>\n")
    run(row)

    page = office.get(row.get_absolute_url()).content.decode()

    assert "Missing columns: price, stock, category. The first line says: name,sku" in page
    assert "Nothing was changed in the shop." in page


def test_rejected_rows_are_downloaded_without_formulas(office: Client) -> None:
    row = make_import(f"{HEADER}{BAD}")
    run(row)

    answer = office.get(f"{row.get_absolute_url()}rejected.csv")

    assert answer["Content-Disposition"] == f'attachment; filename="rejected-{str(row.pk)[:8]}.csv"'
    assert list(csv.reader(answer.content.decode("utf-8-sig").splitlines())) == [
        ["line", "reason", "cells"],
        ["2", "price is negative", "'=HYPERLINK(1) | B-1 | -1 | 1 | X"],
    ]


def test_import_page_shows_the_first_rejected_rows_and_counts_the_others(office: Client) -> None:
    row = make_import(HEADER + BAD * 1100)
    run(row)

    page = office.get(row.get_absolute_url()).content.decode()
    download = office.get(f"{row.get_absolute_url()}rejected.csv").content.decode()

    assert "Line&nbsp;51<" in page
    assert "Line&nbsp;52<" not in page
    assert "and 1,050 more. The download has the first 1,000." in page
    assert len(download.splitlines()) == 1001


@pytest.mark.parametrize("path", ["/imports/", "/imports/{pk}/"])
def test_page_makes_as_many_queries_for_three_rows_as_for_one(path: str, office: Client) -> None:
    counts = []
    for rows in (1, 3):
        for _ in range(rows):
            row = make_import(HEADER + BAD * rows)
            run(row)
        with CaptureQueriesContext(connection) as queries:
            office.get(path.format(pk=row.pk))
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_sample_is_a_file_that_the_import_takes(office: Client) -> None:
    row = make_import(SAMPLE.read_bytes())

    run(row)

    row.refresh_from_db()
    assert (row.status, row.created_count, row.rejected_count) == (ImportStatus.DONE, 3, 0)
    assert "sample-products.csv" in office.get("/imports/").content.decode()
    assert "/imports/" in office.get("/dashboard/").content.decode()


def test_sample_with_mistakes_has_one_good_line(office: Client) -> None:
    row = make_import(SAMPLE.with_name("sample-products-with-mistakes.csv").read_bytes())

    run(row)

    row.refresh_from_db()
    assert (row.status, row.created_count, row.rejected_count) == (ImportStatus.DONE, 1, 9)
    assert len(set(row.rejected_rows.values_list("reason", flat=True))) == 9
    assert "sample-products-with-mistakes.csv" in office.get("/imports/").content.decode()


# --- The real processes ---


def requeue(row: ProductImport) -> None:
    tasks.import_products.apply_async(kwargs={"import_id": str(row.pk)}, **tasks.import_options(row.pk))


def ended(row: ProductImport) -> bool:
    row.refresh_from_db()
    return not row.is_open


@pytest.mark.proves("orders.tasks.import_products", "worker")
@pytest.mark.django_db(transaction=True)
def test_import_that_was_killed_in_the_middle_goes_on_and_ends_right(shop: Shop) -> None:
    total = 20_000
    row = make_import(HEADER + "".join(f"Lamp {n},N-{n},{n}.50,{n % 9},Lighting\n" for n in range(total)))
    requeue(row)

    wait_for(lambda: ProductImport.objects.filter(pk=row.pk, rows_done__gte=2000).exists(), "the first chunks")
    strike(ProductImport.objects.get(pk=row.pk).claimed_by, signal.SIGKILL)
    at_the_kill = ProductImport.objects.get(pk=row.pk).rows_done
    wait_for(lambda: ended(row), "the import")
    wait_for(lambda: Notification.objects.filter(mail_sent_at__isnull=False).exists(), "the mail")

    assert 0 < at_the_kill < total
    assert (row.status, row.attempts >= 2) == (ImportStatus.DONE, True)
    assert (row.rows_done, row.created_count, row.updated_count, row.rejected_count) == (total, total, 0, 0)
    assert Product.objects.count() == total
    assert Notification.objects.count() == 1


@pytest.mark.proves("orders.tasks.handle_import_failure", "worker")
@pytest.mark.django_db(transaction=True)
def test_person_is_told_by_the_callback_when_the_task_has_failed(shop: Shop) -> None:
    PeriodicTask.objects.filter(task="orders.tasks.check_unfinished_imports").update(enabled=False)
    row = make_import(HEADER, requested_by=make_user(email="sam-failed@example.com", is_staff=True))
    default_storage.delete(str(row.file.name))

    requeue(row)

    wait_for(lambda: ended(row), "the end of the import")
    wait_for(lambda: shop.sandbox("/mail.json?to=sam-failed@example.com"), "the mail")
    failed = TaskResult.objects.get(task_name="orders.tasks.import_products")
    assert (row.status, failed.status, row.claimed_by) == (ImportStatus.FAILED, states.FAILURE, "")
    assert [mail["subject"] for mail in shop.sandbox("/mail.json?to=sam-failed@example.com")] == [
        "Your import of products.csv has failed"
    ]


@pytest.mark.proves("orders.tasks.check_unfinished_imports", "worker")
@pytest.mark.django_db(transaction=True)
def test_person_is_told_by_the_sweep_when_the_callback_was_lost(shop: Shop) -> None:
    row = make_import(HEADER, status=ImportStatus.RUNNING, attempts=6, claimed_by="a-dead-task")

    wait_for(lambda: ended(row), "the sweep")
    wait_for(lambda: Notification.objects.filter(mail_sent_at__isnull=False).exists(), "the mail")

    assert row.status == ImportStatus.FAILED
    assert Notification.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_web_answers_a_huge_upload_before_its_body_comes(shop: Shop) -> None:
    wire = http.client.HTTPConnection("127.0.0.1", shop_settings.PORT, timeout=20)
    wire.putrequest("POST", "/imports/")
    wire.putheader("Content-Length", str(2**31))
    wire.putheader("Content-Type", "multipart/form-data; boundary=x")
    wire.endheaders()

    answer = wire.getresponse()

    assert answer.status == 413
    assert b"That is too large for the shop" in answer.read()
    wire.close()


@pytest.mark.django_db(transaction=True)
def test_staff_uploads_a_file_and_sees_what_became_of_it(page: Page, shop: Shop, tmp_path: Path) -> None:
    make_user(email="sam@example.com", is_staff=True, is_superuser=True)
    file = tmp_path / "lamps.csv"
    file.write_text(f"{HEADER}Lamp,A-1,1,1,X\n{BAD}")
    page.goto("/accounts/login/")
    page.locator("[name=login]").fill("sam@example.com")
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("main form button[type=submit]").click()
    page.get_by_role("link", name="Product import").click()

    page.locator("[name=file]").set_input_files(file)
    page.locator("main form button[type=submit]").click()

    expect(page.locator("#import-live")).to_contain_text("1 new, 0 updated, 1 rejected", timeout=30_000)
    expect(page.locator("#import-live")).to_contain_text("price is negative")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    assert "price is negative" in Path(download.value.path()).read_text()
