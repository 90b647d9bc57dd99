"""What a person wants to be sent: the registration, the preferences page, the links that leave a list."""

from collections.abc import Callable
from email import message_from_bytes
from email.policy import default
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.cache import cache
from django.core.signing import Signer
from django.test import Client
from django.utils import timezone

from accounts import unsubscribe
from accounts.forms import PreferencesForm
from accounts.models import User
from myproject.web import mails
from tests.factories import PASSWORD, make_notification, make_user

pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture(autouse=True)
def no_rate_limits() -> None:
    cache.clear()


@pytest.fixture
def reader() -> User:
    return make_user(name="Rita", wants_digest=True)


@pytest.fixture
def stranger() -> Client:
    """A mail program: no login, no cookie, and CSRF checks on."""
    return Client(enforce_csrf_checks=True)


def link(person: User) -> str:
    return urlsplit(unsubscribe.url(person, "digest")).path


def wants_digest(person: User) -> bool:
    person.refresh_from_db()
    return person.wants_digest


# --- Choosing ---


@pytest.mark.parametrize(("box", "wanted"), [({"wants_digest": "on"}, True), ({}, False)])
def test_signup_asks_for_the_digest(box: dict[str, str], wanted: bool, client: Client) -> None:
    data = {"email": "alice@example.com", "name": "Alice", "password1": PASSWORD, "password2": PASSWORD}

    client.post("/accounts/signup/", data | box)

    assert User.objects.get().wants_digest is wanted


@pytest.mark.parametrize(("data", "wanted"), [({"wants_digest": "on"}, True), ({}, False)])
def test_preferences_are_saved(data: dict[str, str], wanted: bool, login: Login) -> None:
    person = make_user(wants_digest=not wanted)

    answer = login(person).post("/people/preferences/", data)

    assert (answer.status_code, wants_digest(person)) == (302, wanted)


def test_preferences_leave_what_a_task_wrote_meanwhile(reader: User) -> None:
    stale = User.objects.get(pk=reader.pk)
    User.objects.update(mail_sent_at=timezone.now(), name="Renamed")

    form = PreferencesForm({}, instance=stale)
    assert form.is_valid()
    form.save()

    reader.refresh_from_db()
    assert (reader.name, reader.mail_sent_at is None, reader.wants_digest) == ("Renamed", False, False)


def test_preferences_show_one_s_own_notices(reader: User, login: Login) -> None:
    make_notification(reader, subject="Yours <b>", url="/orders/")
    make_notification(subject="Another's")

    html = login(reader).get("/people/preferences/").content.decode()

    assert '<a href="/orders/"><bdi>Yours &lt;b&gt;</bdi></a>' in html
    assert "Another" not in html


@pytest.mark.parametrize("count", [1, 3])
def test_preferences_take_the_same_queries_however_many_notices(
    count: int, reader: User, login: Login, django_assert_num_queries: Any
) -> None:
    client = login(reader)
    for _ in range(count):
        make_notification(reader)

    with django_assert_num_queries(4):
        client.get("/people/preferences/")


def test_dashboard_leads_to_the_preferences(reader: User, login: Login) -> None:
    assert 'href="/people/preferences/"' in login(reader).get("/dashboard/").content.decode()


def test_preferences_need_a_login(client: Client) -> None:
    assert client.get("/people/preferences/")["Location"].startswith("/accounts/login/")


# --- Leaving by a link ---


@pytest.mark.parametrize("method", ["get", "head"])
def test_unsubscribe_asks_first(method: str, reader: User, stranger: Client) -> None:
    answer = getattr(stranger, method)(link(reader))

    assert (answer.status_code, wants_digest(reader)) == (200, True)
    assert "no-store" in answer["Cache-Control"]


def test_unsubscribe_works_by_one_click_without_login_or_cookie(reader: User, stranger: Client) -> None:
    other = make_user(wants_digest=True)

    answers = [stranger.post(link(reader), ONE_CLICK) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert (wants_digest(reader), wants_digest(other)) == (False, True)
    assert "You have left the weekly digest" in answers[0].content.decode()


def test_unsubscribe_says_the_same_when_the_person_is_gone(reader: User, stranger: Client) -> None:
    path = link(reader)
    reader.delete()

    assert stranger.post(path, ONE_CLICK).status_code == 200


@pytest.mark.parametrize("change", [lambda path: path[:-4] + "/", lambda path: "/people/unsubscribe/WzEsImRpZ2VzdCJd/"])
def test_unsubscribe_explains_a_broken_link(change: Callable[[str], str], reader: User, stranger: Client) -> None:
    path = change(link(reader))

    answers = [stranger.get(path), stranger.post(path, ONE_CLICK)]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert "This link is not whole" in answers[0].content.decode()
    assert wants_digest(reader) is True


def test_unsubscribe_does_not_take_a_signature_made_for_something_else(reader: User, stranger: Client) -> None:
    token = Signer(salt="elsewhere").sign_object([reader.pk, "digest"])

    assert stranger.post(f"/people/unsubscribe/{token}/", ONE_CLICK).status_code == 404


def test_unsubscribe_explains_a_list_that_is_no_more(
    reader: User, stranger: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = link(reader)
    monkeypatch.delitem(unsubscribe.LISTS, "digest")

    assert stranger.get(path).status_code == 404


# --- In the mail ---


def test_mail_of_a_list_has_both_headers_and_a_link(reader: User) -> None:
    url = unsubscribe.url(reader, "digest")

    message = mails.render("accounts/email/welcome", reader.email, "digest-1", {"user": reader}, unsubscribe=url)

    sent = message_from_bytes(message.message().as_bytes(), policy=default)
    assert url.startswith(settings.SITE_URL)
    assert sent["List-Unsubscribe"].strip() == f"<{url}>"
    assert sent["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert f'<a href="{url}"' in str(message.alternatives[0][0])


def test_mail_that_must_come_has_no_unsubscribe(reader: User) -> None:
    message = mails.render("accounts/email/welcome", reader.email, "welcome-1", {"user": reader})

    assert "Unsubscribe" not in message.message().as_string()
