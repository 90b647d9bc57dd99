"""Files in an S3-compatible bucket instead of the disk: all that touches them, and a storage that refuses."""

import io
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
import time_machine
from django.conf import settings as shop_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, RequestFactory
from django.utils import timezone
from PIL import Image

from accounts.models import User
from durable.errors import TemporaryError
from myproject.storage import files
from myproject.storage.storage_url import storage
from orders import tasks as order_tasks
from orders import thumbnails
from orders.models import PictureStatus, Product, ProductImport
from orders.models import Status as OrderStatus
from reports import downloads, erasure, services, tasks
from reports.models import PAUSES, Pack, Report, Status
from tests.broker import Broker
from tests.bucket import NAME, Server
from tests.factories import (
    make_erasure,
    make_export,
    make_import,
    make_pack,
    make_product,
    make_report,
    make_user,
    place_order,
    put,
)

pytest_plugins = ["tests.broker", "tests.bucket"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]


def use(url: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process keep its files there, as STORAGE_URL does when it starts."""
    settings.STORAGES = shop_settings.STORAGES | {"default": storage(url), "reports": storage(url)}
    for model in (Report, Pack):
        # The field has asked for its storage when the model was loaded.
        monkeypatch.setattr(model._meta.get_field("file"), "storage", storages["reports"])


@pytest.fixture
def bucket(server: Server, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Server:
    use(server.url, settings, monkeypatch)
    return server


def write(report: Report) -> Report:
    services.write_report(report)
    return again(report)


def again(report: Report) -> Report:
    return Report.objects.get(pk=report.pk)


def run(report: Report) -> None:
    tasks.generate_report.apply(kwargs={"report_id": str(report.pk)})


def status(url: str, **headers: str) -> int:
    try:
        with urlopen(Request(url, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def of_the_bucket(report: Report) -> str:
    return downloads.answer(RequestFactory().get("/"), report)["Location"]


# --- Who gets a file ---


def test_download_leads_to_an_address_of_the_bucket_s_own(bucket: Server, staff: User, login: Login) -> None:
    report = write(make_report(staff))

    client = login(staff)
    answer = client.get(client.get(f"{report.get_absolute_url()}download/")["Location"])

    assert (answer.status_code, answer["Cache-Control"]) == (302, "private, no-store")
    assert answer["Location"].startswith(f"{bucket.endpoint}/{NAME}/shop/{report.file.name}?")
    with urlopen(answer["Location"], timeout=10) as file:
        data = file.read()
    assert data == bucket.content(f"shop/{report.file.name}")
    assert len(data) == report.size
    heading = 'attachment; filename="order-lines-2026-01-01-2026-01-31.csv"'
    assert (file.headers["Content-Disposition"], file.headers["Content-Type"]) == (heading, "text/csv")


def test_bucket_serves_a_part_of_a_file(bucket: Server) -> None:
    report = write(make_report())
    address = of_the_bucket(report)

    with urlopen(Request(address, headers={"Range": "bytes=5-9"}), timeout=10) as answer:
        part = answer.read()

    assert (answer.status, part) == (206, bucket.content(f"shop/{report.file.name}")[5:10])


def test_address_of_a_bucket_expires_and_cannot_be_changed_or_guessed(bucket: Server) -> None:
    report, other = write(make_report()), write(make_report())
    address = of_the_bucket(report)
    lasts = int(parse_qs(urlsplit(address).query)["X-Amz-Expires"][0])
    with time_machine.travel(timezone.now() - downloads.STORAGE_LINK_LASTS - timedelta(seconds=5)):
        expired = of_the_bucket(report)

    forged = [
        address.replace(str(report.pk), str(other.pk)),
        address.replace(f"X-Amz-Expires={lasts}", "X-Amz-Expires=604800"),
        address.partition("?")[0],
    ]

    assert lasts == downloads.STORAGE_LINK_LASTS.total_seconds()
    assert [status(url) for url in [address, expired, *forged]] == [200, 403, 403, 403, 403]


@pytest.mark.parametrize("person", ["colleague", "customer", None])
def test_address_is_private(person: str | None, bucket: Server, staff: User, login: Login) -> None:
    report = write(make_report(staff))
    people = {"colleague": make_user(is_staff=True, is_superuser=True), "customer": make_user()}

    answer = (login(people[person]) if person else Client()).get(f"{report.get_absolute_url()}download/")

    assert bucket.endpoint not in answer.get("Location", "")
    assert answer.status_code == (404 if person else 302)


def test_person_is_told_when_the_bucket_s_address_cannot_be_made(
    bucket: Server, staff: User, login: Login, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = write(make_report(staff))
    # Neither a key in the address nor one that boto3 finds.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    use(f"s3+http://127.0.0.1:{bucket.port}/{NAME}/shop", settings, monkeypatch)

    answer = login(staff).get(f"{report.get_absolute_url()}download/", follow=True)

    assert answer.status_code == 503
    assert "The storage cannot be reached" in answer.content.decode()


# --- What else touches files ---


def test_pack_is_bundled_from_the_bucket_into_the_bucket(bucket: Server) -> None:
    put(place_order(product=make_product()), OrderStatus.COMPLETED)
    pack = make_pack()
    for report in pack.members.all():
        services.write_report(report)

    tasks.generate_pack.apply(kwargs={"pack_id": str(pack.pk)})

    pack.refresh_from_db()
    assert (pack.status, pack.missing_count, pack.error) == ("ready", 0, "")
    data = bucket.content(f"shop/{pack.file.name}")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == pack.members.count() + 1
    assert len(data) == pack.size


def test_clean_up_removes_old_files_and_orphans_of_the_bucket(bucket: Server) -> None:
    old, kept, nobody_s = write(make_report()), write(make_report()), make_report()
    Report.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(days=31))
    for name in (services.file_name(nobody_s, 1), "reports/by-hand.csv", f"packs/{nobody_s.pk}-1.zip"):
        storages["reports"].save(name, ContentFile(b"x"))

    tasks.clear_old_reports()
    young = bucket.names()
    # What no row names is perhaps still being written.
    with time_machine.travel(timezone.now() + timedelta(days=2)):
        tasks.clear_old_reports()

    assert len(young) == 4
    assert bucket.names() == sorted(["shop/reports/by-hand.csv", f"shop/{kept.file.name}"])


def test_account_goes_with_all_its_files_in_the_bucket(bucket: Server) -> None:
    person = make_user(is_staff=True)
    write(make_export(person))
    # What a killed worker has left.
    storages["reports"].save(services.file_name(make_report(person), 1), ContentFile(b"x"))
    pack = make_pack(person)
    storages["reports"].save(f"packs/{pack.pk}-1.zip", ContentFile(b"x"))

    erasure.erase(make_erasure(person))

    assert bucket.names() == []


def test_write_report_removes_from_the_bucket_what_a_dead_attempt_has_stored(bucket: Server) -> None:
    report = make_report(status=Status.RUNNING, attempts=1, claimed_by="dead")
    storages["reports"].save(services.file_name(report, 1), ContentFile(b"x"))

    run(report)

    assert bucket.names() == [f"shop/{services.file_name(report, 2)}"]


def test_long_file_is_stored_in_parts_and_appears_whole(bucket: Server) -> None:
    data = bytes(range(256)) * 80_000

    name = storages["reports"].save("reports/long.csv", ContentFile(data))

    assert (bucket.content(f"shop/{name}") == data, bucket.uploads()) == (True, [])
    with storages["reports"].open(name) as file:
        assert file.read() == data


def test_import_is_read_from_the_bucket(bucket: Server, broker: Broker) -> None:
    row = make_import("sku,name,category,price,stock\nL-1,Lamp,Lighting,12.50,3\n")

    order_tasks.import_products.apply(kwargs={"import_id": str(row.pk)})

    assert Product.objects.get().sku == "L-1"
    assert [key.startswith("shop/imports/") for key in bucket.names()] == [True]


def test_thumbnails_are_made_in_the_bucket_and_shown_by_the_shop(bucket: Server) -> None:
    image = io.BytesIO()
    Image.new("RGB", (800, 600), "teal").save(image, "PNG")
    product = make_product()
    thumbnails.use_picture(product, thumbnails.store_picture(ContentFile(image.getvalue()), "png"))

    made = thumbnails.make_thumbnails(Product.objects.get().pk)
    product.refresh_from_db()
    shown = Client().get(f"/pictures/{product.thumbnails}-400.webp")

    assert (made, product.picture_status) == (True, PictureStatus.READY)
    name = f"thumbnails/{product.thumbnails}-400.webp"
    assert b"".join(shown.streaming_content) == bucket.content(f"shop/{name}")  # type: ignore[attr-defined]
    assert Client().get(f"/pictures/{'0' * 32}-400.webp").status_code == 404


# --- A storage that refuses ---


@pytest.fixture(params=["no bucket", "wrong key", "away"])
def refusing(request: pytest.FixtureRequest, bucket: Server, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a person is told of it."""
    if request.param == "no bucket":
        bucket.client.delete_bucket(Bucket=NAME)
        return "The storage answers NoSuchBucket."
    if request.param == "wrong key":
        use(bucket.url.replace("half", "other"), settings, monkeypatch)
        return "The storage answers AccessDenied."
    bucket.stop()
    return "The storage cannot be reached (EndpointConnectionError)."


def test_report_is_tried_again_and_then_fails_when_the_storage_refuses(
    refusing: str, bucket: Server, broker: Broker
) -> None:
    report, found = make_report(), []

    for _ in range(len(PAUSES) + 1):
        run(report)
        report.refresh_from_db()
        found.append((report.status, report.error, report.file.name))
        Report.objects.filter(status=Status.QUEUED).update(due_at=timezone.now())

    assert found[:-1] == [(Status.QUEUED, refusing, "")] * len(PAUSES)
    assert found[-1] == (Status.FAILED, f"{refusing} We tried 4 times.", "")


def test_pack_ends_with_the_reason_when_the_storage_refuses(
    bucket: Server, broker: Broker, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = make_pack()
    for report in pack.members.all():
        services.write_report(report)
    written = bucket.names()
    use(bucket.url.replace("half", "other"), settings, monkeypatch)

    tasks.generate_pack.apply(kwargs={"pack_id": str(pack.pk)})

    pack.refresh_from_db()
    assert (pack.status, pack.error) == ("failed", "The storage answers Forbidden. Please request it again later.")
    assert bucket.names() == written


def test_half_of_a_long_file_is_given_up_when_its_rest_cannot_be_read(bucket: Server) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            # The first part is stored by then.
            if self.tell() > 10_000_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(TemporaryError, match="Input/output error"):
        files.save_whole("reports/long.csv", File(Breaking(bytes(20_000_000))), storages["reports"])

    assert (bucket.names(), bucket.uploads()) == ([], [])


def test_upload_is_refused_with_a_reason_when_the_storage_is(refusing: str, login: Login, staff: User) -> None:
    file = SimpleUploadedFile("products.csv", b"sku,name,category,price,stock\nL-1,Lamp,Lighting,12.50,3\n")
    token = "6a1b5f0e-3d68-4d0a-9a53-0f7c1b1a7a55"

    answer = login(staff).post("/imports/", {"file": file, "token": token})

    assert (answer.status_code, ProductImport.objects.count()) == (422, 0)
    assert "The file could not be stored. Nothing of it was kept; upload it again later." in answer.content.decode()


# --- The address of it ---


@pytest.mark.parametrize("url", ["https://host/bucket", "s3://host", "s3:///bucket", "s3://host/", "bucket"])
def test_address_that_names_no_bucket_is_refused_at_start(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="STORAGE_URL must be s3://key:secret@host/bucket"):
        storage(url)


def test_address_may_leave_out_key_prefix_and_region() -> None:
    options = storage("s3://s3.example.com/bucket")["OPTIONS"]

    assert options == {
        "endpoint_url": "https://s3.example.com",
        "bucket_name": "bucket",
        "location": "",
        "region_name": "us-east-1",
    }
    assert storage("")["BACKEND"].endswith("FileSystemStorage")
