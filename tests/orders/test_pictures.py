"""Pictures of products: refused with a reason, or made into thumbnails once, whatever happens meanwhile."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import ENOSPC
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from accounts.models import User
from durable.errors import TemporaryError
from orders import pictures, tasks, thumbnails
from orders.models import PictureStatus, Product
from tests.broker import Broker
from tests.factories import claim, make_product
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db


def drawn(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (900, 600), **options: Any) -> bytes:
    target = io.BytesIO()
    Image.new(mode, size, options.pop("colour", 120)).save(target, kind, **options)
    return target.getvalue()


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of a few hundred bytes that claims to be as large as that."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


# (28, 160, 60) in Display P3, as a telephone writes it.
P3 = (Path(__file__).parent / "display-p3.icc").read_bytes()
HEIC = (Path(__file__).parent / "display-p3.heic").read_bytes()


def upload(product: Product, content: bytes, kind: str = "jpg") -> Product:
    thumbnails.use_picture(product, thumbnails.store_picture(ContentFile(content, name=f"x.{kind}"), kind))
    return Product.objects.get(pk=product.pk)


def make(product: Product) -> Product:
    tasks.make_thumbnails.apply(kwargs={"product_id": product.pk}).get()
    return Product.objects.get(pk=product.pk)


def files(folder: str) -> set[str]:
    return set(default_storage.listdir(folder)[1]) if default_storage.exists(folder) else set()


def opened(product: Product, width: int = 400) -> Image.Image:
    image = Image.open(default_storage.open(f"thumbnails/{product.thumbnails}-{width}.webp"))
    image.load()
    return image


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


# --- What may be uploaded ---


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (SVG, "This is no JPEG, PNG, WebP, GIF, AVIF or HEIC picture."),
        (b"", "This is no JPEG, PNG, WebP, GIF, AVIF or HEIC picture."),
        (b"GIF89a", "This is no JPEG, PNG, WebP, GIF, AVIF or HEIC picture."),
        (b"\xff\xd8\xff" + b"\0" * 50, "This is no JPEG, PNG, WebP, GIF, AVIF or HEIC picture."),
        (drawn("BMP"), "This is no JPEG, PNG, WebP, GIF, AVIF or HEIC picture."),
        (bomb(), "The picture has more than 52 million pixels."),
        (bomb(8_000, 8_000), "The picture has more than 52 million pixels."),
        (drawn("PNG", "L", size=(2, 20_001)), "The picture is wider or higher than 20,000 pixels."),
        (
            drawn("WEBP", size=(6_000, 4_500), lossless=True, method=0, quality=0),
            "The picture has more than 26 million pixels.",
        ),
        (HEIC[:500], "This is no JPEG, PNG, WebP, GIF, AVIF or HEIC picture."),
        (drawn() + b"\0" * pictures.MAX_BYTES, "The picture is larger than 10 MB."),
    ],
)
def test_unusable_picture_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(pictures.Unusable, match=reason):
        pictures.check(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("kind", "mode", "ending"),
    [
        *(("JPEG", mode, "jpg") for mode in ("RGB", "CMYK", "L")),
        *(("PNG", mode, "png") for mode in ("RGB", "RGBA", "P", "LA", "1", "I;16")),
        ("MPO", "RGB", "jpg"),
        ("WEBP", "RGBA", "webp"),
        ("GIF", "P", "gif"),
        ("AVIF", "RGBA", "avif"),
    ],
)
def test_thumbnails_are_made_of_each_kind(kind: str, mode: str, ending: str) -> None:
    several: dict[str, Any] = {"save_all": True, "append_images": [Image.new(mode, (90, 60))]} if kind == "MPO" else {}
    content = drawn(kind, mode, colour=1 if mode == "1" else 0, **several)

    made = pictures.thumbnails(io.BytesIO(content))

    assert pictures.check(io.BytesIO(content), len(content)) == ending
    assert [Image.open(io.BytesIO(data)).size for data in made.values()] == [(400, 300), (800, 600), (1200, 900)]


@pytest.mark.parametrize(
    ("content", "right"),
    [
        (drawn(colour=(76, 158, 73), icc_profile=P3), (28, 160, 60)),
        (drawn("PNG", colour=(76, 158, 73), icc_profile=P3), (28, 160, 60)),
        (HEIC, (28, 160, 60)),
        (drawn("PNG", "RGBA", colour=(76, 158, 73, 100), icc_profile=P3), (28, 160, 60, 100)),
        # Says nothing: no profile, or one of other colours than the picture's.
        (drawn(colour=(76, 158, 73), icc_profile=b"broken"), (76, 158, 73)),
        (drawn("JPEG", "CMYK", colour=(200, 0, 150, 0), icc_profile=P3), (55, 255, 105)),
    ],
)
def test_thumbnails_have_the_colours_that_the_profile_means(content: bytes, right: tuple[int, ...]) -> None:
    data = pictures.thumbnails(io.BytesIO(content))[400]

    assert Image.open(io.BytesIO(data)).getpixel((50, 50)) == pytest.approx(right, abs=3)
    assert b"ICCP" not in data


def test_picture_of_a_telephone_is_taken_in_little_memory() -> None:
    """A photograph of 48 million pixels is decoded at a fraction of its size."""
    program = "import sys; from orders import pictures; pictures.thumbnails(open(sys.argv[1], 'rb'));"
    program += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    with NamedTemporaryFile() as file:
        file.write(drawn(size=(8064, 6048)))
        file.flush()
        peak = subprocess.run([sys.executable, "-c", program, file.name], capture_output=True, check=True).stdout

    assert int(peak) < 150_000


def test_sixteen_bits_become_eight_without_losing_the_light() -> None:
    made = pictures.thumbnails(io.BytesIO(drawn("PNG", "I;16", colour=30_000)))

    assert Image.open(io.BytesIO(made[400])).convert("L").getpixel((10, 10)) == pytest.approx(30_000 / 256, abs=2)


def test_thumbnails_keep_what_is_transparent() -> None:
    made = pictures.thumbnails(io.BytesIO(drawn("PNG", "RGBA", colour=(255, 0, 0, 0))))

    assert Image.open(io.BytesIO(made[400])).mode == "RGBA"


def test_animated_picture_gives_its_first_frame() -> None:
    target = io.BytesIO()
    first, second = (Image.new("RGB", (400, 300), colour) for colour in ("red", "blue"))
    first.save(target, "GIF", save_all=True, append_images=[second])

    made = Image.open(io.BytesIO(pictures.thumbnails(target)[400])).convert("RGB").getpixel((5, 5))

    assert isinstance(made, tuple)
    assert made[0] > 200
    assert made[2] < 60


def test_thumbnails_stand_upright_and_say_nothing_of_where_they_were_taken() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "CAMERA-OF-ALICE"
    exif.get_ifd(0x8825)[2] = (52.0, 30.0, 0.0)
    target, wide = io.BytesIO(), Image.new("RGB", (800, 600), "red")
    wide.paste("blue", (0, 0, 400, 600))
    wide.save(target, "JPEG", exif=exif)

    data = pictures.thumbnails(target)[400]

    made = Image.open(io.BytesIO(data)).convert("RGB")
    top, bottom = made.getpixel((200, 10)), made.getpixel((200, 290))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert (top[2] > 200, bottom[0] > 200) == (True, True)
    assert not any(word in data for word in (b"CAMERA", b"EXIF", b"ICCP", b"XMP"))


# --- The task ---


def test_make_thumbnails_publishes_whole_files_and_names_them() -> None:
    product = make(upload(make_product(), drawn()))

    assert (product.picture_status, product.picture_due_at) == (PictureStatus.READY, None)
    assert opened(product, 1200).size == (1200, 900)
    assert not any(name.endswith(".part") for name in files("thumbnails"))


def test_thumbnail_that_cannot_be_written_whole_has_no_public_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(content: object, size: int | None = None) -> Iterator[bytes]:
        yield b"half"
        raise OSError(ENOSPC, "No space left on device")

    pending, before = upload(make_product(), drawn()), files("thumbnails")
    monkeypatch.setattr(ContentFile, "chunks", cut_off, raising=False)

    with pytest.raises(OSError, match="No space"):
        thumbnails.make_thumbnails(pending.pk)

    assert not any(name.endswith(".webp") for name in files("thumbnails") - before)


@pytest.mark.proves("orders.tasks.make_thumbnails", "twice", page="admin:orders_product_changelist")
def test_make_thumbnails_twice_is_once() -> None:
    product = make(upload(make_product(), drawn()))
    before = files("thumbnails")

    again = make(product)

    assert (again.thumbnails, files("thumbnails")) == (product.thumbnails, before)


def test_make_thumbnails_by_two_workers_gives_one_set() -> None:
    pending = upload(make_product(), drawn())

    claimed = [claim(pending, str(number)) for number in range(2)]
    Product.objects.update(picture_due_at=timezone.now())
    shown = [thumbnails.make_thumbnails(pending.pk) for _ in range(2)]

    product = Product.objects.get(pk=pending.pk)
    assert (claimed, shown) == ([pending, None], [True, False])
    assert opened(product).size == (400, 300)


def test_make_thumbnails_lets_the_newest_picture_win() -> None:
    stale = claim(upload(make_product(), drawn(colour=(255, 0, 0))))
    content = pictures.thumbnails(stale.picture.open())
    newest = upload(stale, drawn(colour=(0, 0, 255)))

    assert not thumbnails.publish_thumbnails(stale, content)
    product = make(newest)

    pixel = opened(product).convert("RGB").getpixel((5, 5))
    assert isinstance(pixel, tuple)
    assert (pixel[2] > 200, pixel[0] < 60) == (True, True)


def test_make_thumbnails_ends_with_a_reason_when_the_picture_is_cut_off() -> None:
    product = make(upload(make_product(), drawn()[:-300]))

    assert (product.picture_status, product.picture_error) == ("failed", "The picture is broken or cut off.")
    assert product.thumbnails == ""


@pytest.mark.django_db(transaction=True)
def test_new_picture_replaces_the_files_of_the_old_one_when_it_is_ready() -> None:
    first = make(upload(make_product(), drawn(colour=(255, 0, 0))))
    second = upload(first, drawn(colour=(0, 0, 255)))
    meanwhile = files("thumbnails")

    product = make(second)

    assert f"{first.thumbnails}-400.webp" in meanwhile
    assert not any(name.startswith(first.thumbnails) for name in files("thumbnails"))
    assert not default_storage.exists(str(first.picture))
    assert opened(product).size == (400, 300)


def test_make_thumbnails_waits_for_a_storage_that_is_away(broker: Broker) -> None:
    product = upload(make_product(), drawn())

    with patch.object(pictures, "thumbnails", side_effect=TemporaryError("The storage is away.")) as attempt:
        tasks.make_thumbnails.apply(kwargs={"product_id": product.pk})
    waiting = Product.objects.get(pk=product.pk)

    assert (waiting.picture_status, waiting.picture_attempts, attempt.call_count) == ("pending", 0, 6)
    assert make(product).picture_status == "ready"


def test_check_pending_pictures_queues_what_was_left_behind(broker: Broker) -> None:
    late, _young = (upload(make_product(), drawn()) for _ in range(2))
    Product.objects.filter(pk=late.pk).update(picture_due_at=timezone.now())

    tasks.check_pending_pictures()

    assert broker.messages() == [("default", "orders.tasks.make_thumbnails", {"product_id": late.pk})]


@pytest.mark.proves("orders.tasks.check_pending_pictures", "twice")
def test_check_pending_pictures_twice_has_one_effect(broker: Broker) -> None:
    product = upload(make_product(), drawn())
    Product.objects.filter(pk=product.pk).update(picture_due_at=timezone.now())
    for _ in range(2):
        tasks.check_pending_pictures()

    with patch.object(pictures, "thumbnails", wraps=pictures.thumbnails) as attempt:
        for _, _, kwargs in broker.messages():
            tasks.make_thumbnails.apply(kwargs=kwargs).get()

    assert attempt.call_count == 1


def test_picture_waits_for_a_worker_that_is_away_however_long(broker: Broker) -> None:
    product = upload(make_product(), drawn())

    for _ in range(10):
        Product.objects.filter(pk=product.pk).update(picture_due_at=timezone.now())
        tasks.check_pending_pictures()

    assert make(product).picture_status == "ready"


def test_check_pending_pictures_gives_up_what_dies_too_often(broker: Broker) -> None:
    product = upload(make_product(), drawn())

    for _ in range(3):
        with patch.object(pictures, "thumbnails", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            thumbnails.make_thumbnails(product.pk)
        Product.objects.filter(pk=product.pk).update(picture_due_at=timezone.now())
    again = thumbnails.make_thumbnails(product.pk)
    tasks.check_pending_pictures()

    product.refresh_from_db()
    assert (again, product.picture_status, broker.messages()) == (False, "failed", [])
    assert product.picture_error == "No thumbnails could be made in 3 attempts."


# --- Pages ---


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


def post(office: Client, product: Product, content: bytes | None = None, **fields: Any) -> Any:
    facts = {name: getattr(product, name) for name in ("sku", "name", "category", "description", "price")}
    # The name tells nothing: a picture is what is in it.
    files = {"upload_picture": SimpleUploadedFile("lamp.txt", content)} if content is not None else {}
    page = reverse("admin:orders_product_change", args=[product.pk])
    return office.post(page, facts | {"is_active": "on", "adjust_stock": 0} | files | fields)


@pytest.mark.django_db(transaction=True)
def test_admin_takes_a_picture_and_queues_its_thumbnails(office: Client, broker: Broker) -> None:
    product = make_product()

    answer = post(office, product, drawn("PNG"))

    product.refresh_from_db()
    assert (answer.status_code, product.picture_status) == (302, "pending")
    assert str(product.picture).endswith(".png")
    assert broker.messages() == [("default", "orders.tasks.make_thumbnails", {"product_id": product.pk})]


@pytest.mark.parametrize(("content", "word"), [(bomb(), "million pixels"), (SVG, "This is no JPEG")])
def test_admin_refuses_a_picture_with_a_reason(content: bytes, word: str, office: Client) -> None:
    product = make_product()

    answer = post(office, product, content)

    product.refresh_from_db()
    assert answer.status_code == 200
    assert word in answer.content.decode()
    assert product.picture_status == ""


@pytest.mark.django_db(transaction=True)
def test_storage_that_is_slow_lets_orders_go_on(office: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    product, store = make_product(stock=5), thumbnails.store_picture

    def slow(*args: Any) -> str:
        with ThreadPoolExecutor(1) as other:
            other.submit(sell, product).result(timeout=10)
        return store(*args)

    monkeypatch.setattr(thumbnails, "store_picture", slow)

    post(office, product, drawn("PNG"), name="Lantern", adjust_stock=2)

    product.refresh_from_db()
    assert (product.name, product.stock, product.picture_status) == ("Lantern", 6, "pending")


def sell(product: Product) -> None:
    try:
        Product.objects.filter(pk=product.pk).adjust_stock(-1)
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_admin_removes_a_picture_and_its_files(office: Client, broker: Broker) -> None:
    product = make(upload(make_product(), drawn()))

    post(office, product, remove_picture="on")

    again = Product.objects.get(pk=product.pk)
    assert (again.thumbnails, str(again.picture), again.picture_status) == ("", "", "")
    assert not any(name.startswith(product.thumbnails) for name in files("thumbnails"))


def test_pages_show_the_picture_in_sizes_or_the_drawing(client: Client) -> None:
    plain, shown = make_product(), make(upload(make_product(), drawn()))

    pages = [client.get(page).content.decode() for page in ("/", shown.get_absolute_url(), plain.get_absolute_url())]

    assert f"/pictures/{shown.thumbnails}-400.webp 400w" in pages[0]
    assert f"/products/{plain.slug}.svg" in pages[0]
    assert f"/pictures/{shown.thumbnails}-1200.webp 1200w" in pages[1]
    # Below it are more of its category, and one of them has a picture.
    assert "srcset" not in pages[2].partition('id="more"')[0]


def test_picture_is_served_to_be_kept_for_ever(client: Client) -> None:
    product = make(upload(make_product(), drawn()))

    answer = client.get(f"/pictures/{product.thumbnails}-800.webp")

    assert (answer.status_code, answer["Content-Type"]) == (200, "image/webp")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "immutable" in answer["Cache-Control"]


def test_nothing_else_of_the_storage_is_served(client: Client) -> None:
    product = make(upload(make_product(), drawn()))
    original, report = str(product.picture), default_storage.save("reports/secret.csv", ContentFile(b"x"))

    paths = [f"/{original}", f"/pictures/{Path(original).name}", f"/{report}", f"/pictures/../{report}"]
    paths += [f"/media/{report}", f"/pictures/{'0' * 32}-400.webp", f"/pictures/{product.thumbnails}-999.webp"]

    assert {client.get(path).status_code for path in paths} == {404}


# --- Real processes ---


@pytest.mark.proves("orders.tasks.make_thumbnails", "orders.tasks.check_pending_pictures", "worker")
@pytest.mark.django_db(transaction=True)
def test_worker_makes_what_was_left_behind(shop: Shop) -> None:
    product = upload(make_product(), drawn())
    Product.objects.filter(pk=product.pk).update(picture_due_at=timezone.now())

    wait_for(Product.objects.filter(pk=product.pk, picture_status="ready").exists, "the thumbnails")


@pytest.mark.django_db(transaction=True)
def test_worker_survives_a_bomb_that_came_past_the_form(shop: Shop) -> None:
    product = upload(make_product(), bomb(), "png")

    tasks.make_thumbnails.delay(product_id=product.pk)

    wait_for(Product.objects.filter(pk=product.pk, picture_status="failed").exists, "the end")
    assert Product.objects.get(pk=product.pk).picture_error == "The picture has more than 52 million pixels."
    assert settings.MEDIA_ROOT.exists()
