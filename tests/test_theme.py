"""The choice between light and dark pages, which the server writes into them."""

from collections.abc import Callable

import pytest
from django.test import Client

from accounts.models import User

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("theme", "said"), [("dark", ' data-theme="dark"'), ("light", ' data-theme="light"')])
def test_theme_is_written_into_the_next_page(theme: str, said: str, client: Client) -> None:
    answer = client.post("/theme/", {"theme": theme, "next": "/basket/"})

    assert (answer.status_code, answer["Location"]) == (302, "/basket/")
    assert answer.cookies["theme"]["httponly"]
    page = client.get("/basket/").content.decode()
    assert f'<html lang="en"{said}>' in page
    assert f'value="{theme}" aria-pressed="true"' in page


@pytest.mark.parametrize("theme", ["auto", "", "pink", '"><script>'])
def test_theme_of_the_browser_is_the_default(theme: str, client: Client) -> None:
    client.post("/theme/", {"theme": theme, "next": "/"})

    assert '<html lang="en">' in client.get("/").content.decode()


@pytest.mark.parametrize("page", ["https://evil.example/", "//evil.example", "", "javascript:alert(1)"])
def test_choice_leads_to_no_other_site(page: str, client: Client) -> None:
    assert client.post("/theme/", {"theme": "dark", "next": page})["Location"] == "/"


def test_admin_has_the_theme_too(login: Callable[[User], Client], staff: User) -> None:
    office = login(staff)
    office.post("/theme/", {"theme": "dark", "next": "/"})

    assert '<meta name="color-scheme" content="dark">' in office.get("/admin/").content.decode()


def test_browser_finds_the_icon_where_it_looks_first(client: Client) -> None:
    answer = client.get("/favicon.ico")

    assert answer["Location"].endswith("/favicon.ico")
    assert answer.status_code == 302
