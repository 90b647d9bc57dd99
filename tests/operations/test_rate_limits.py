"""Limits on logins count for all web processes together, and who meets one is told when to come back."""

import re
from pathlib import Path

import pytest
from allauth.account import app_settings
from allauth.core.internal.ratelimit import parse_rates
from django.core.cache import cache
from django.test import Client

from tests.factories import make_user
from tests.production import Web

pytestmark = pytest.mark.operations

LOGIN = "/accounts/login/"
# Those whose form says so itself: django-allauth answers no 429 there.
IN_THE_FORM = {"login_failed", "confirm_email"}


@pytest.fixture(autouse=True)
def no_limits_from_before(transactional_db: None) -> None:
    cache.clear()


def test_login_is_limited_over_all_processes_of_the_web(tmp_path: Path) -> None:
    with Web(tmp_path, WEB_CONCURRENCY="2") as web:
        cookie = web.get(LOGIN).cookies()[0].partition(";")[0]
        answers = [post(web, cookie) for _ in range(34)]
        elsewhere = post(web, cookie, **{"X-Forwarded-For": "192.0.2.1, 198.51.100.7"})

    processes = set(re.findall(r"process <(\d+)>", web.log.read_text()))
    assert len(processes) == 2
    assert [answer[0] for answer in answers] == [200] * 30 + [429] * 4
    assert elsewhere[0] == 200
    assert answers[-1][1] == "60"
    assert "wait a minute" in answers[-1][2]
    assert "/static/shop." in answers[-1][2]


def post(web: Web, cookie: str, **headers: str) -> tuple[int, str | None, str]:
    answer = web.post(LOGIN, {"csrfmiddlewaretoken": cookie.partition("=")[2]}, Cookie=cookie, **headers)
    return answer.status, answer.headers["Retry-After"], answer.text


def test_limits_that_answer_429_last_no_longer_than_the_page_says() -> None:
    limits = app_settings.RATE_LIMITS.items()
    lasting = {action: max((rate.duration for rate in parse_rates(rates)), default=0) for action, rates in limits}

    assert {action for action, seconds in lasting.items() if seconds > 60} == IN_THE_FORM


def test_wrong_passwords_are_limited_and_the_form_says_for_how_long() -> None:
    person = make_user()
    client = Client()

    pages = [client.post(LOGIN, {"login": person.email, "password": f"wrong {n}"}).content.decode() for n in range(6)]

    assert ["five minutes" in page for page in pages] == [False] * 5 + [True]
