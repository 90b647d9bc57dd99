"""Axe finds nothing on any page, in either theme, nor on what a form says when it is sent empty."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.attack.addresses import make_person
from tests.looks.pages import SANDBOX, THEMES, Theme, fill_sandbox, pages_of, show, tab
from tests.running import sandbox

pytestmark = [pytest.mark.looks, pytest.mark.django_db(transaction=True), pytest.mark.timeout(1200)]

# To take these away would make each page one without its person.
KEPT = ("/accounts/logout/", "/accounts/reauthenticate/")
# Django's admin marks up some of its pages itself; what is listed here is Django's, not ours.
OF_DJANGO = {
    "exclude": [
        [".related-widget-wrapper-link"],
        [".help-tooltip"],
        [".vDateField"],
        [".vTimeField"],
        [".tabular thead"],
    ]
}
SEND_EMPTY = """form => {
    for (const field of form.querySelectorAll("input:not([type=hidden]), textarea")) {
        if (field.type === "checkbox") field.checked = false; else if (field.type !== "submit") field.value = "";
    }
    form.noValidate = true;
    HTMLFormElement.prototype.submit.call(form);
}"""


def findings(page: Page) -> list[str]:
    found: Any = Axe().run(page, context=OF_DJANGO if "/admin/" in page.url else None)
    return [f"{row['id']}: {node['html'][:160]}" for row in found.response["violations"] for node in row["nodes"][:3]]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("role", ["visitor", "administrator"])
def test_axe_finds_nothing_on_any_page(role: str, theme: Theme, browser: Browser, live_server: Any) -> None:
    person = make_person(role)
    found: dict[str, list[str]] = {}
    with tab(browser, live_server.url, theme, person) as page:
        for name, address in pages_of(person).items():
            if show(page, address):
                found[name] = findings(page)

    assert {name: rows for name, rows in found.items() if rows} == {}
    assert len(found) > 20


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_on_what_forms_say_when_they_are_sent_empty(
    theme: Theme, browser: Browser, live_server: Any
) -> None:
    person = make_person("administrator")
    found: dict[str, list[str]] = {}
    with tab(browser, live_server.url, theme, person) as page:
        ours = [(n, a) for n, a in pages_of(person).items() if not a.startswith("/admin/") and a not in KEPT]
        for name, address in ours:
            forms = "main form[method=post]"
            for number in range(page.locator(forms).count() if show(page, address) else 0):
                show(page, address)
                if number >= page.locator(forms).count():
                    break
                with page.expect_navigation():
                    page.locator(forms).nth(number).evaluate(SEND_EMPTY)
                found[f"{name}-{number}"] = findings(page)

    assert {name: rows for name, rows in found.items() if rows} == {}
    assert len(found) > 20


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_on_the_pages_of_the_sandbox(theme: Theme, browser: Browser) -> None:
    with sandbox() as places:
        fill_sandbox(places)
        with tab(browser, places["SANDBOX_URL"], theme, None) as page:
            found = {path or "home": findings(page) for path in SANDBOX if show(page, f"/{path}")}

    assert {name: rows for name, rows in found.items() if rows} == {}
    assert len(found) == len(SANDBOX)
