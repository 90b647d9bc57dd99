"""`make screenshots`: each page in both themes and four widths, in var/screenshots, for a person to look at."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Browser

from accounts.models import User
from tests.looks.pages import SANDBOX, THEMES, WIDTHS, fill_sandbox, history, pages_of, show, tab
from tests.running import sandbox

pytestmark = [pytest.mark.looks, pytest.mark.django_db(transaction=True), pytest.mark.timeout(1800)]

FOLDER = settings.BASE_DIR / "var" / "screenshots"
# How much of a list's table is scrolled to only.
CUT_OFF = """() => Math.max(0, ...Array.from(
    document.querySelectorAll(".results"), (list) => list.scrollWidth - list.clientWidth
))"""
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_screenshots_of_each_page_show_no_page_wider_than_its_screen(browser: Browser, live_server: Any) -> None:
    with history():
        people = {"visitor": None, "staff": User.objects.get(email="staff@example.com")}
        addresses = pages_of(people["staff"])
        wider = {}
        for theme in THEMES:
            for width in WIDTHS:
                for who, person in people.items():
                    with tab(browser, live_server.url, theme, person, width) as page:
                        for name, address in addresses.items():
                            if show(page, address):
                                page.screenshot(path=picture(f"{who}-{name}", theme, width), full_page=True)
                                wider[f"{who}-{name} {theme} {width}"] = page.evaluate(WIDER)

    assert {name: pixels for name, pixels in wider.items() if pixels and "admin" not in name} == {}


def test_lists_of_the_admin_fit_1280_pixels(browser: Browser, live_server: Any) -> None:
    with history():
        staff = User.objects.get(email="staff@example.com")
        cut_off = {}
        with tab(browser, live_server.url, "light", staff, 1280) as page:
            for name, address in pages_of(staff).items():
                if address.startswith("/admin/") and show(page, address):
                    cut_off[name] = page.evaluate(CUT_OFF)

    assert {name: pixels for name, pixels in cut_off.items() if pixels} == {}


def test_screenshots_of_the_sandbox(browser: Browser) -> None:
    with sandbox() as places:
        fill_sandbox(places)
        for theme in THEMES:
            for width in WIDTHS:
                with tab(browser, places["SANDBOX_URL"], theme, None, width) as page:
                    for path in SANDBOX:
                        show(page, f"/{path}")
                        name = f"sandbox-{path.replace('/', '-') or 'home'}"
                        page.screenshot(path=picture(name, theme, width), full_page=True)
                        assert page.evaluate(WIDER) == 0, (path, width)


def picture(name: str, theme: str, width: int) -> Path:
    return Path(FOLDER) / f"{width}-{theme}" / f"{name}.png"
