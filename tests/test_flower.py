"""Flower, the real process, under another host name than the shop: asked by a stranger, and by staff."""

import re
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
from django.conf import settings
from django.core.signing import Signer, TimestampSigner, b62_encode
from django.test import Client
from flower.urls import handlers
from tornado.web import create_signed_value

from accounts.models import User
from myproject.web.flower import SIGNER, TOKEN_LASTS, note
from tests.factories import make_user
from tests.shop import Shop, answers, wait_for

# All that somebody without a login may see: a word for probes, style sheets, and a button that does nothing for them.
OPEN = {("GET", "/healthcheck"), ("GET", "/static/css/flower.css"), ("GET", "/logout")}
# Another host name than Flower's own: no cookie goes from one to the other.
SHOP = f"http://127.0.0.1:{settings.PORT}"
LIFE = int(TOKEN_LASTS.total_seconds())


def paths() -> list[str]:
    """Return an address for each route of Flower's own but its page for what is not found."""
    routes = [str(route[0] if isinstance(route, tuple) else route.regex.pattern).rstrip("$") for route in handlers]
    filled = [route.replace("static/(.*)", "static/css/flower.css").replace("/?", "") for route in routes]
    return [route.replace("(.+)", "x").replace("(.*)", "x") for route in filled if route != ".*"]


def ask(method: str, path: str) -> tuple[int, str, bytes]:
    http = HTTPConnection("127.0.0.1", settings.FLOWER_PORT, timeout=20)
    try:
        http.request(method, path)
        answer = http.getresponse()
        return answer.status, answer.headers.get("Location") or "", answer.read()
    finally:
        http.close()


def test_stranger_sees_nothing_of_flower(shop: Shop) -> None:
    seen = {(method, path): ask(method, path) for path in paths() for method in ("GET", "POST")}

    assert len(seen) > 60
    assert {key for key, (status, where, _) in seen.items() if status < 400 and not is_login(where)} == OPEN
    assert is_login(seen["GET", "/metrics"][1])
    assert seen["GET", "/healthcheck"][2] == b"OK"


def is_login(where: str) -> bool:
    return where.startswith(("/login", f"{settings.SITE_URL}/flower/"))


def browser_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def noted(user: User) -> str:
    """Return the key by which Flower finds a new session of this person."""
    return note(str(browser_of(user).session.session_key))


def token_of(user: User) -> str:
    return SIGNER.sign(noted(user))


def aged(user: User, seconds: int) -> str:
    """Return the token that the shop has made so many seconds ago."""
    return Signer(salt=SIGNER.salt).sign(f"{noted(user)}:{b62_encode(int(time.time()) - seconds)}")


def log_in(token: str) -> requests.Response:
    return requests.get(f"{settings.FLOWER_URL}/login", {"token": token}, timeout=20, allow_redirects=False)


def enters(token: str) -> bool:
    answer = log_in(token)
    assert answer.status_code == 302
    assert "token" not in answer.headers["Location"]
    return answer.headers["Location"] == "/" and "user" in answer.cookies


@pytest.mark.parametrize("path", ["/", "/tasks?name=orders.tasks.process_order"])
def test_staff_enters_flower_under_its_own_name(
    path: str, shop: Shop, staff: User, login: Callable[[User], Client]
) -> None:
    browser = requests.Session()
    browser.cookies.set("sessionid", str(login(staff).session.session_key), domain="127.0.0.1")

    # The way to the shop is walked by its other name, where the session is.
    asked = browser.get(f"{settings.FLOWER_URL}/login?{urlencode({'next': path})}", timeout=20, allow_redirects=False)
    way = asked.headers["Location"].replace(settings.SITE_URL, SHOP)
    sent = browser.get(way, timeout=20, allow_redirects=False)
    page = browser.get(sent.headers["Location"], timeout=20)

    assert way.startswith(f"{SHOP}/flower/?")
    assert sent.headers["Location"].startswith(f"{settings.FLOWER_URL}/login?")
    assert "no-store" in sent.headers["Cache-Control"]
    assert (page.status_code, page.url) == (200, settings.FLOWER_URL + path)
    assert "sessionid" not in {c.name for c in browser.cookies if c.domain != "127.0.0.1"}
    assert browser.get(f"{settings.FLOWER_URL}/broker", timeout=20).ok


def test_token_is_of_no_use_after_half_a_minute(shop: Shop, staff: User) -> None:
    token = aged(staff, LIFE - 15)

    assert enters(token)
    wait_for(lambda: not enters(token), "the end of the token")


@pytest.mark.parametrize(
    "signer",
    [
        TimestampSigner(salt="reports.downloads"),
        TimestampSigner(key="of somebody else", salt=SIGNER.salt),
    ],
    ids=["other salt", "other key"],
)
def test_token_of_another_signer_is_refused(signer: TimestampSigner, shop: Shop, staff: User) -> None:
    assert enters(token_of(staff))
    assert not enters(signer.sign(noted(staff)))


@pytest.mark.parametrize("token", ["", ":", "1", "1:1:1", "x" * 5000, "é", "\x00", "1:1sNnqK:"])
def test_token_that_is_none_is_refused(token: str, shop: Shop) -> None:
    assert not enters(token)


def test_token_of_one_is_none_of_another(shop: Shop, staff: User) -> None:
    _, _, signed = token_of(make_user()).partition(":")

    assert not enters(f"{noted(staff)}:{signed}")


@pytest.mark.parametrize("change", [{"is_staff": False}, {"is_active": False}], ids=str)
def test_token_of_who_is_no_staff_any_more_is_refused(change: dict[str, bool], shop: Shop, staff: User) -> None:
    token = token_of(staff)
    User.objects.filter(pk=staff.pk).update(**change)

    assert not enters(token)


def test_token_of_who_is_gone_is_refused(shop: Shop, staff: User) -> None:
    token = token_of(staff)
    staff.delete()

    assert not enters(token)


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "/\\evil.example/"])
def test_flower_leads_nowhere_else(elsewhere: str, shop: Shop, staff: User) -> None:
    query = urlencode({"next": elsewhere, "token": token_of(staff)})

    answer = requests.get(f"{settings.FLOWER_URL}/login?{query}", timeout=20, allow_redirects=False)

    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize(("minutes", "status"), [(50, 200), (70, 302)])
def test_cookie_is_believed_for_an_hour(minutes: int, status: int, shop: Shop, staff: User) -> None:
    then = time.time() - minutes * 60
    cookie = create_signed_value(settings.SECRET_KEY, "user", noted(staff), clock=lambda: then).decode()

    answer = requests.get(settings.FLOWER_URL, cookies={"user": cookie}, timeout=20, allow_redirects=False)

    assert answer.status_code == status


def sees(cookie: str, path: str = "/") -> bool:
    answer = requests.get(settings.FLOWER_URL + path, cookies={"user": cookie}, timeout=20, allow_redirects=False)
    assert answer.status_code == 200 or is_login(answer.headers["Location"])
    return answer.status_code == 200


def sign_out(staff: User, browser: Client) -> None:
    browser.post("/accounts/logout/")


def change_password(staff: User, browser: Client) -> None:
    staff.set_password("quite-new-words-7")
    staff.save()


ENDS: dict[str, Callable[[User, Client], Any]] = {
    "signs out": sign_out,
    "has another password": change_password,
    "is deactivated": lambda staff, browser: User.objects.filter(pk=staff.pk).update(is_active=False),
    "is staff no more": lambda staff, browser: User.objects.filter(pk=staff.pk).update(is_staff=False),
    "loses the permission": lambda staff, browser: User.objects.filter(pk=staff.pk).update(is_superuser=False),
    "is deleted": lambda staff, browser: staff.delete(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_cookie_ends_at_once_when_the_person(end: Callable[[User, Client], Any], shop: Shop, staff: User) -> None:
    browser = browser_of(staff)
    key = note(str(browser.session.session_key))
    cookie = log_in(SIGNER.sign(key)).cookies["user"]
    assert [sees(cookie), sees(cookie, "/api/task/types"), sees(cookie, "/metrics")] == [True] * 3

    end(staff, browser)

    assert [sees(cookie), sees(cookie, "/api/task/types"), sees(cookie, "/metrics")] == [False] * 3
    assert not enters(SIGNER.sign(key))


def test_copy_of_the_cookie_ends_when_its_person_logs_out_of_flower(shop: Shop, staff: User) -> None:
    cookie = log_in(token_of(staff)).cookies["user"]
    assert sees(cookie)

    requests.get(f"{settings.FLOWER_URL}/logout", cookies={"user": cookie}, timeout=20)

    assert not sees(cookie)


def test_neither_token_nor_cookie_holds_the_session(staff: User) -> None:
    browser = browser_of(staff)

    sent = browser.get("/flower/").headers["Location"]

    assert "token=" in sent
    assert str(browser.session.session_key) not in sent


def test_token_is_in_no_log(shop: Shop, staff: User) -> None:
    token = token_of(staff)
    before = len(shop.log.read_text(errors="replace"))

    assert enters(token)
    # What is no text is an error, whose line names the whole address.
    broken = requests.get(f"{settings.FLOWER_URL}/login?token={quote(token)}&next=%FF", timeout=20)

    assert broken.status_code == 400
    said = wait_for(lambda: re.findall(r"400 GET /login\S*", shop.log.read_text(errors="replace")[before:]), "the line")
    assert said == ["400 GET /login…"]
    assert token.rpartition(":")[2] not in shop.log.read_text(errors="replace")


def test_cookie_behind_tls_is_secure_and_a_former_key_lets_in(shop: Shop, staff: User) -> None:
    former = TimestampSigner(key="the-former-key", salt=SIGNER.salt)
    assert not enters(former.sign(noted(staff)))
    try:
        shop.variables = {"HTTPS": "true", "SECRET_KEY_FALLBACKS": "the-former-key"}
        restart(shop)

        entered = log_in(former.sign(noted(staff)))
        cookie = entered.headers["Set-Cookie"]
        name, _, value = cookie.partition(";")[0].partition("=")
        page, anybody_s = (
            requests.get(settings.FLOWER_URL, headers={"Cookie": f"{of}={value}"}, timeout=20, allow_redirects=False)
            for of in (name, "user")
        )
        left = requests.get(f"{settings.FLOWER_URL}/logout", headers={"Cookie": f"{name}={value}"}, timeout=20)
    finally:
        shop.variables = {}
        restart(shop)

    # No other site of the domain can set a cookie of this name.
    assert (name, page.status_code, anybody_s.status_code) == ("__Host-user", 200, 302)
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    # A browser drops a cookie of this name only where it is said anew with these.
    (gone,) = [said for said in left.raw.headers.getlist("Set-Cookie") if said.startswith('__Host-user=""; ')]
    assert {"Secure", "Path=/"} <= set(gone.split("; "))


def restart(shop: Shop) -> None:
    shop.stop("flower")
    shop.start("flower")
    wait_for(lambda: answers(f"{settings.FLOWER_URL}/healthcheck"), "Flower")
