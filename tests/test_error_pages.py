"""An error page needs nothing that can fail: no database, no session, no collected static files."""

import pytest
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.test import Client
from django.urls import get_resolver

from myproject.web import pages

# Nothing here may use the database: pytest-django fails tests that use it without asking.
PAGES = {
    "400": "could not understand",
    "403": "not open to you",
    "403_csrf": "no longer valid",
    "404": "nothing at this address",
    "413": "too large",
    "429": "too often",
    "500": "broke on our side",
}


@pytest.fixture(autouse=True)
def no_static_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> str:
        raise ValueError(f"Missing staticfiles manifest entry for {name!r}")

    monkeypatch.setattr(staticfiles_storage, "url", refuse)


@pytest.mark.parametrize(("name", "words"), PAGES.items())
def test_error_page_needs_no_context(name: str, words: str) -> None:
    page = render_to_string(f"{name}.html")

    assert words in page
    assert 'href="/static/shop.css"' in page


def test_each_error_page_is_tried_here() -> None:
    templates = {path.stem for path in (settings.BASE_DIR / "templates").glob("[45]*.html")}

    assert templates == set(PAGES)


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_handler_of_errors_needs_no_session(status: int) -> None:
    answer = get_resolver().resolve_error_handler(status)(HttpRequest(), exception=Exception())  # type: ignore[call-arg]

    assert (answer.status_code, PAGES[str(status)] in answer.content.decode()) == (status, True)


def test_page_of_csrf_needs_no_session() -> None:
    answer = pages.csrf_failed(HttpRequest())

    assert (answer.status_code, PAGES["403_csrf"] in answer.content.decode()) == (403, True)


def test_address_that_is_wrong_is_not_found_while_the_database_is_away() -> None:
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = "of-some-visitor"

    answer = client.get("/nothing/")

    assert (answer.status_code, PAGES["404"] in answer.content.decode()) == (404, True)
