"""Flower, the real process, asked by a stranger."""

from http.client import HTTPConnection

import pytest
from django.conf import settings
from flower.urls import handlers

from tests.shop import Shop, answers, wait_for

# All that somebody without a login may see: a word for probes, style sheets, and a button that does nothing for them.
OPEN = {("GET", "/healthcheck"), ("GET", "/static/css/flower.css"), ("GET", "/logout")}


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


@pytest.mark.usefixtures("transactional_db")
def test_stranger_sees_nothing_of_flower(processes: Shop) -> None:
    wait_for(lambda: answers(f"{settings.FLOWER_URL}/healthcheck"), "Flower")

    seen = {(method, path): ask(method, path) for path in paths() for method in ("GET", "POST")}

    assert len(seen) > 60
    assert {key for key, (status, where, _) in seen.items() if status < 400 and not is_login(where)} == OPEN
    assert is_login(seen["GET", "/metrics"][1])
    assert seen["GET", "/healthcheck"][2] == b"OK"


def is_login(where: str) -> bool:
    return where.startswith(("/login", f"{settings.SITE_URL}/flower/"))
