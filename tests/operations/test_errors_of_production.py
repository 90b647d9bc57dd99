"""Production without its static files, and without its database: what a visitor is told."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests.production import Web
from tests.test_error_pages import PAGES

pytestmark = pytest.mark.operations


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
