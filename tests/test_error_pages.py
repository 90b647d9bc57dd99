"""An error page needs nothing that can fail: no database, no session, no collected static files."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.test import Client
from django.urls import get_resolver

from myproject.web import pages
from tests.production import Web

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


def test_shop_without_collected_files_sells_and_says_what_was_forgotten(transactional_db: None, tmp_path: Path) -> None:
    with Web(tmp_path, collected=False, LOG_FORMAT="console") as web:
        shown = [web.get(path).status for path in ("/", "/accounts/login/", "/healthz/live")]
        lost = web.get("/nothing/")
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy"],
        cwd=settings.BASE_DIR,
        env=web.environment,
        capture_output=True,
        text=True,
    )

    assert shown == [200, 200, 200]
    assert (lost.status, PAGES["404"] in lost.text) == (404, True)
    assert "static files were not collected" in web.log.read_text()
    assert "Traceback" not in web.log.read_text()
    assert checked.returncode == 1
    assert "(myproject.E001)" in checked.stderr


def test_page_that_fails_for_the_database_is_our_own(tmp_path: Path, db: None) -> None:
    with Broken(tmp_path, collected=False, DATABASE_URL="postgres://127.0.0.1:1/shop") as web:
        answer = web.get("/orders/", Cookie="__Host-sessionid=of-some-visitor")

    assert (answer.status, PAGES["500"] in answer.text) == (500, True)


class Broken(Web):
    def answers(self) -> bool:
        try:
            return self.get("/healthz/live").status == 200
        except OSError:
            return False
