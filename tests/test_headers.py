"""What browsers are told: by gunicorn with the settings of production, and in Chromium page by page."""

import re
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from accounts.models import ApiToken, User
from tests.factories import PASSWORD, make_product, make_user, place_order
from tests.production import Answer, Web

LOGIN = "/accounts/login/"
ALWAYS = {
    "Content-Security-Policy": (
        f"default-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self' {settings.FLOWER_URL}; "
        "frame-ancestors 'none'; img-src 'self' data:; object-src 'none'"
    ),
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=(), "
    "display-capture=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@pytest.fixture(scope="module")
def started(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with Web(tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture
def web(started: Web, transactional_db: None) -> Web:
    # No model's table, so nothing empties it between tests: logins would be limited soon.
    cache.clear()
    return started


def directives(policy: str) -> set[str]:
    return {part.strip() for part in policy.split(";")}


def test_answers_of_production_carry_each_header(web: Web) -> None:
    pages = {path: web.get(path) for path in (LOGIN, "/", "/admin/login/", "/nothing/", "/reports/")}

    for path, page in pages.items():
        found = {name: page.headers[name] for name in ALWAYS}
        assert directives(found.pop("Content-Security-Policy")) == directives(ALWAYS["Content-Security-Policy"]), path
        assert found == {name: value for name, value in ALWAYS.items() if name != "Content-Security-Policy"}, path
    assert "Server" not in pages["/"].headers or "gunicorn/" not in str(pages["/"].headers["Server"])


@pytest.mark.django_db
def test_pages_are_compressed_but_not_those_that_show_a_secret(login: Callable[[User], Client], customer: User) -> None:
    browser, zipped = login(customer), {"accept-encoding": "gzip"}
    browser.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    pages = {name: browser.get(reverse(name), headers=zipped) for name in ("dashboard", "accounts:tokens", "mfa_index")}

    assert {name: page.headers.get("Content-Encoding") for name, page in pages.items()} == {
        "dashboard": "gzip",
        "accounts:tokens": None,
        "mfa_index": None,
    }
    assert {page.status_code for page in pages.values()} == {200}


@pytest.mark.django_db
def test_picture_that_a_browser_has_is_not_sent_again(client: Client) -> None:
    address = reverse("orders:picture", args=[make_product().slug])
    first = client.get(address)

    again = client.get(address, headers={"if-none-match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")


def test_static_files_of_production_are_hardened_too(web: Web) -> None:
    name = re.search(r'"(/static/shop\.[0-9a-f]+\.css)"', web.get(LOGIN).text)

    answer = web.get(name[1] if name else "")

    assert answer.status == 200
    for header in ("Strict-Transport-Security", "Permissions-Policy", "X-Content-Type-Options"):
        assert answer.headers[header] == ALWAYS[header]


def test_visitor_without_tls_is_sent_to_it(web: Web) -> None:
    answer = web.get(LOGIN, **{"X-Forwarded-Proto": "http"})

    assert (answer.status, answer.headers["Location"]) == (301, f"https://shop.example.com{LOGIN}")


def test_cookies_of_production_are_for_this_host_and_no_script(web: Web) -> None:
    person = make_user()
    token = pair(web.get(LOGIN))

    answer = web.post(
        LOGIN,
        {"csrfmiddlewaretoken": token.partition("=")[2], "login": person.email, "password": PASSWORD},
        Cookie=token,
    )

    cookies = {cookie.partition("=")[0]: cookie.split("; ") for cookie in answer.cookies()}
    assert answer.status == 302
    assert {"__Host-sessionid", "__Host-csrftoken"} <= set(cookies)
    for cookie in cookies.values():
        assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(cookie)
        assert not any(part.startswith("Domain") for part in cookie)


def sign_in(web: Web, person: User) -> str:
    """Return the Cookie header of the person's session."""
    token = pair(web.get(LOGIN))
    form = {"csrfmiddlewaretoken": token.partition("=")[2], "login": person.email, "password": PASSWORD}
    return "; ".join(cookie.partition(";")[0] for cookie in web.post(LOGIN, form, Cookie=token).cookies())


def test_each_cookie_has_the_prefix_that_of_messages_too(web: Web) -> None:
    # A button pressed after signing out leaves a message.
    token = pair(web.get(LOGIN))
    answer = web.post("/checkout/", {"csrfmiddlewaretoken": token.partition("=")[2]}, Cookie=token)
    names = {cookie.partition("=")[0] for page in (web.get(LOGIN), answer) for cookie in page.cookies()}

    assert "__Host-messages" in names
    assert {name for name in names if not name.startswith("__Host-")} == set()


def test_each_page_of_a_person_is_private_and_kept_nowhere(web: Web) -> None:
    order = place_order()
    shopper = sign_in(web, order.customer)
    boss = sign_in(web, make_user(is_staff=True, is_superuser=True))
    own = ["/", "/basket/", "/orders/", order.get_absolute_url(), "/dashboard/", "/reports/", "/people/profile/"]
    account = ["/accounts/email/", "/people/preferences/", "/nothing/", "/reports/7/"]
    answers = {path: web.get(path, Cookie=shopper) for path in own + account}
    answers |= {path: web.get(path, Cookie=boss) for path in ["/admin/", "/dashboard/queues/", "/try-it/", "/flower/"]}

    for cookie in (f"__Host-basket={uuid4()}", "__Host-theme=dark"):
        answers[cookie] = web.get("/", Cookie=cookie)
    answers["a script"] = web.get("/api/v1/orders/", Authorization=f"Bearer {ApiToken.objects.make(make_user(), 'x')}")

    kept = {path: answer.headers["Cache-Control"] or "" for path, answer in answers.items()}

    assert answers["a script"].status == 200
    assert {path: said for path, said in kept.items() if not {"private", "no-store"} <= set(said.split(", "))} == {}
    # The first visit, which names the basket; and a picture is everybody's.
    assert web.get("/").headers["Cache-Control"] == "private, no-store"
    picture = web.get(f"/products/{order.items.get().product.slug}.svg", Cookie=shopper)
    assert picture.headers["Cache-Control"] == "max-age=86400, public"


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "Script-Name", "PATH_INFO", "REMOTE_USER", "X-Script-Name"])
def test_headers_say_nothing_of_path_or_person(name: str, web: Web) -> None:
    answer = web.get(LOGIN, **{name: "/elsewhere"})

    assert (answer.status, "/elsewhere" in answer.text) == (200, False)


def pair(answer: Answer) -> str:
    return answer.cookies()[0].partition(";")[0]


def test_requests_of_production_have_limits(web: Web) -> None:
    token = pair(web.get(LOGIN))
    fields = {f"field{number}": "" for number in range(1001)}

    too_many_fields = web.post(LOGIN, fields, Cookie=token)
    too_many_headers = web.get(LOGIN, **{f"X-Header-{number}": "" for number in range(70)})
    too_long = web.get(LOGIN, **{"X-Long": "x" * 10_000})

    assert (too_many_fields.status, too_many_headers.status, too_long.status) == (400, 431, 431)
