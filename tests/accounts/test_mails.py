"""Every mail that the shop sends: a subject, text and HTML, and links that work."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from allauth.account.adapter import get_adapter
from allauth.core import context as allauth
from django.conf import settings
from django.core.cache import cache
from django.core.mail import EmailMultiAlternatives
from django.test import Client

from accounts import emails, services
from accounts.models import AccountMail, Erasure, User
from orders import emails as order_emails
from tests.factories import PASSWORD, make_digest, make_notification, make_user, place_order, verified

pytestmark = pytest.mark.django_db

NEW = "another-good-one"


@pytest.fixture(autouse=True)
def no_rate_limits() -> None:
    cache.clear()


def sign_up(client: Client) -> None:
    data = {"email": "alice@example.com", "password1": PASSWORD, "password2": PASSWORD}
    client.post("/accounts/signup/", data | {"name": "Alice"})


def sign_up_again(client: Client) -> None:
    person = make_user(email="alice@example.com")
    with allauth.request_context(client.get("/").wsgi_request):
        get_adapter().send_account_already_exists_mail(person.email)


def reset_password(client: Client) -> None:
    make_user(email="alice@example.com", name="Alice")
    client.post("/accounts/password/reset/", {"email": "alice@example.com"})


def reset_password_of_nobody(client: Client) -> None:
    client.post("/accounts/password/reset/", {"email": "nobody@example.com"})


def follow_reset_link(client: Client) -> None:
    reset_password(client)
    form = client.get(links_in(AccountMail.objects.get().text)[0], follow=True)
    client.post(form.redirect_chain[-1][0], {"password1": NEW, "password2": NEW})


def change_password(client: Client) -> None:
    sign_up(client)
    client.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW})


def confirm_address(client: Client) -> None:
    sign_up(client)
    client.post(links_in(AccountMail.objects.get().text)[0])


def ask_for_another_address(client: Client) -> None:
    confirm_address(client)
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    client.post("/accounts/email/", {"action_add": "", "email": "second@example.com"})


def remove_address(client: Client) -> None:
    ask_for_another_address(client)
    client.post("/accounts/email/", {"action_remove": "", "email": "second@example.com"})


def change_address(client: Client) -> None:
    ask_for_another_address(client)
    mail = AccountMail.objects.filter(to="second@example.com").get()
    client.post(links_in(mail.text)[0])


ACCOUNT_MAILS: list[tuple[Callable[[Client], None], str]] = [
    (sign_up, "Confirm your e-mail address"),
    (sign_up_again, "You already have an account"),
    (reset_password, "Reset your password"),
    (reset_password_of_nobody, "No account"),
    (follow_reset_link, "Your password is changed"),
    (change_password, "Your password is changed"),
    (remove_address, "An e-mail address is removed"),
    (change_address, "Your e-mail address is changed"),
]
OTHER_MAILS: list[Callable[[], EmailMultiAlternatives]] = [
    lambda: emails.welcome(make_user()),
    lambda: emails.notification(make_notification(url="/orders/")),
    lambda: order_emails.confirmation(place_order()),
]


def links_in(text: str) -> list[str]:
    """Return the paths of the links to the shop; fails on any other scheme, host or port."""
    found = re.findall(r"\w+://[^\s\"<>]+", text)
    assert [url for url in found if not url.startswith(f"{settings.SITE_URL}/")] == []
    return [urlsplit(url).path for url in found]


def free_words(person: User) -> dict[str, str]:
    """Return all mails that greet, as they are written for this person."""
    place_order(person)
    digest = order_emails.digest(make_digest(person), [], [])
    notice = emails.notification(make_notification(person=person))
    Client().post("/accounts/password/reset/", {"email": person.email})
    reset = AccountMail.objects.get()
    services.anonymise(person)
    parting = emails.farewell(Erasure.objects.get())
    said = {"notice": notice, "digest": digest, "farewell": parting}
    texts = {name: f"{mail.body} {mail.alternatives[0][0]!s}" for name, mail in said.items()}
    return texts | {"reset": reset.text + reset.html}


def test_no_mail_says_a_name_to_an_address_before_it_is_verified() -> None:
    person = make_user(name="You have won at evil.example")

    said = free_words(person)

    assert {name for name, text in said.items() if "evil.example" in text} == set()


def test_mails_greet_by_name_once_the_address_is_verified() -> None:
    said = free_words(verified(make_user(name="Alice")))

    assert {name for name, text in said.items() if "Alice" not in text} == {"farewell"}


def assert_complete(message: EmailMultiAlternatives) -> None:
    [(html, mimetype)] = message.alternatives
    assert mimetype == "text/html"
    assert (bool(message.subject), "\n" in message.subject, "<!DOCTYPE html>" in str(html)) == (True, False, True)
    assert "{" not in str(message.body) + str(html)
    paths = links_in(str(message.body))
    assert set(paths) == set(links_in(str(html)))
    assert paths
    assert {Client().get(path).status_code for path in paths} <= {200, 302}


@pytest.mark.parametrize(("act", "subject"), ACCOUNT_MAILS, ids=lambda value: getattr(value, "__name__", None))
def test_account_mail_has_text_html_and_links_that_work(
    act: Callable[[Client], None], subject: str, client: Client
) -> None:
    # Free text from the sender of the request, to an address that may be somebody else's.
    client.defaults["HTTP_USER_AGENT"] = "Win 1000 at evil.example"
    act(client)

    row = AccountMail.objects.order_by("pk").last()
    assert row is not None
    assert row.subject.startswith(subject)
    assert "evil.example" not in row.text + row.html
    assert_complete(emails.account(row))


@pytest.mark.parametrize("make", OTHER_MAILS, ids=["welcome", "notification", "confirmation"])
def test_mail_has_text_html_and_links_that_work(make: Callable[[], Any]) -> None:
    assert_complete(make())
