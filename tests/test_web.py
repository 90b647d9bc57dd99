"""What holds for all pages: templates, the demo data."""

import encodings
import pkgutil
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.template.loader import get_template
from django.test import Client, RequestFactory

from accounts.models import User
from myproject.wsgi import application
from orders.models import Product
from tests.factories import make_user

ROOT = settings.BASE_DIR / "templates"
TEMPLATES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.*"))
# Mail programs know no style sheets.
PAGES = [path for path in TEMPLATES if path.suffix == ".html" and "email" not in str(path.parent) + path.stem[:6]]
INLINE = {
    "script": re.compile(r"<script(?![^>]*\bsrc=)", re.IGNORECASE),
    "style attribute": re.compile(r"""\sstyle\s*=\s*["']""", re.IGNORECASE),
    "style element": re.compile(r"<style", re.IGNORECASE),
    "event handler": re.compile(r"""\son\w+\s*=\s*["']""", re.IGNORECASE),
    "address of another site": re.compile(r"""(?:src|href)=["'](?:https?:)?//""", re.IGNORECASE),
}


@pytest.mark.parametrize("what", INLINE)
def test_pages_have_nothing_that_the_content_security_policy_forbids(what: str) -> None:
    guilty = [str(path) for path in PAGES if INLINE[what].search((ROOT / path).read_text())]

    assert len(PAGES) > 40
    assert guilty == []


@pytest.mark.parametrize("path", TEMPLATES, ids=str)
def test_template_compiles(path: Path) -> None:
    assert get_template(str(path)).origin.name == str(ROOT / path)  # type: ignore[attr-defined]


def test_each_form_that_posts_carries_a_csrf_token() -> None:
    bare = [
        str(path)
        for path in PAGES
        for form in re.findall(r'<form[^>]*method="post".*?</form>', (ROOT / path).read_text(), re.DOTALL)
        if "{% csrf_token %}" not in form
    ]

    assert bare == []


# --- Demo data ---


@pytest.mark.django_db
def test_seed_demo_twice_is_once() -> None:
    for _ in range(2):
        call_command("seed_demo")

    assert sorted(User.objects.values_list("email", "is_staff")) == [
        ("accounting@example.com", True),
        ("customer@example.com", False),
        ("operations@example.com", True),
        ("staff@example.com", True),
        ("support@example.com", True),
        ("warehouse@example.com", True),
    ]
    assert Product.objects.count() == len((settings.BASE_DIR / "orders/catalogue.csv").read_text().splitlines()) - 1


@pytest.mark.django_db
def test_seed_demo_leaves_what_is_there() -> None:
    call_command("seed_demo")
    Product.objects.update(stock=0, name="Renamed")

    call_command("seed_demo")

    assert set(Product.objects.values_list("stock", "name")) == {(0, "Renamed")}


@pytest.mark.django_db
def test_seed_demo_makes_no_people_when_somebody_is_there() -> None:
    make_user(email="owner@example.com")

    call_command("seed_demo")

    assert list(User.objects.values_list("email", flat=True)) == ["owner@example.com"]


@pytest.mark.parametrize("path", ["/nothing/", "/products/no-such-thing/"])
def test_address_without_a_page_is_answered_in_development_as_in_production(
    path: str, client: Client, settings: Any, db: None
) -> None:
    settings.DEBUG = True

    answer = client.get(path)

    assert answer.status_code == 404
    assert "There is nothing at this address" in answer.content.decode()


def test_page_of_a_broken_link_stays_itself_in_development(client: Client, settings: Any, db: None) -> None:
    settings.DEBUG = True

    answer = client.get("/people/unsubscribe/broken/")

    assert (answer.status_code, "This link is not whole" in answer.content.decode()) == (404, True)


# --- Requests whose headers say odd things ---

CODECS = sorted({module.name for module in pkgutil.iter_modules(encodings.__path__)} | {"nope", '"', ""})
PARTS = b"".join(
    b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n\\ud800A\r\n' % name
    for name in (b"login", b"password", b"next")
)


def status_of(path: str, form: bytes = b"", **meta: str) -> int:
    """Return what production answers to such a request; the client of the tests would read it in its own way."""
    said = {"PATH_INFO": path, "REQUEST_METHOD": "POST" if form else "GET", "CONTENT_LENGTH": str(len(form))} | meta
    environ = RequestFactory()._base_environ(  # type: ignore[attr-defined]
        **said, **{"wsgi.input": BytesIO(form)}
    )
    return application.get_response(application.request_class(environ)).status_code


@pytest.mark.django_db
def test_content_type_does_not_choose_how_a_request_is_read() -> None:
    query = "q=%41%5cud800%5cuDC00&page=%41"
    form, body = "multipart/form-data; boundary=B", PARTS + b"--B--\r\n"

    answers = {
        codec: (
            status_of("/", CONTENT_TYPE=f"text/html; charset={codec}", QUERY_STRING=query),
            status_of("/", CONTENT_TYPE=f"text/html; charset*={codec}''%41", QUERY_STRING=query),
            status_of("/accounts/login/", body, CONTENT_TYPE=f"{form}; charset={codec}"),
            status_of("/accounts/login/", body, CONTENT_TYPE=f"multipart/form-data; boundary*={codec}''B"),
        )
        for codec in CODECS
    }

    assert {codec: told for codec, told in answers.items() if told != (200, 200, 403, 403)} == {}
    assert len(answers) > 100


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["sessionid", "csrftoken", "messages", "theme", "basket"])
def test_cookie_that_spells_out_odd_bytes_is_no_fault(name: str) -> None:
    odd = ['"a\\000bcdefghijklm"', f'"{"a" * 20}\\377"', '"\\012\\015Set-Cookie: a=b"', "é" * 20, '"\\', "=" * 20]

    for value in odd:
        assert status_of("/", HTTP_COOKIE=f"{name}={value}") == 200
        assert status_of("/orders/", HTTP_COOKIE=f"{name}={value}") == 302
