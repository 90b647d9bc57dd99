"""What opened an account before its password changed, or it was switched off or closed, does not open it after."""

from collections.abc import Callable
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
from allauth.account.forms import default_token_generator
from allauth.account.models import EmailAddress, EmailConfirmationHMAC
from allauth.account.utils import user_pk_to_url_str
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client

from accounts import services
from accounts.models import ApiToken, User
from tests.factories import PASSWORD, make_user, verified

pytestmark = pytest.mark.django_db(transaction=True)

THEIRS, NEW = "attacker@example.com", "quite-new-words-7"
TWICE = {"password1": NEW, "password2": NEW}


@pytest.fixture(autouse=True)
def no_rate_limits() -> None:
    cache.clear()


def reset_link(person: User) -> str:
    key = f"{user_pk_to_url_str(person)}-{default_token_generator.make_token(person)}"
    return f"/accounts/password/reset/key/{key}/"


def change(person: User) -> None:
    browser = Client()
    browser.force_login(person)
    browser.post("/accounts/password/change/", {"oldpassword": PASSWORD} | TWICE)


def reset(person: User) -> None:
    browser = Client()
    form = browser.get(reset_link(person), follow=True)
    browser.post(form.redirect_chain[-1][0], TWICE)


def change_by_command(person: User) -> None:
    with patch("getpass.getpass", return_value=NEW):
        call_command("changepassword", person.email, stdout=StringIO())


def switch_off(person: User) -> None:
    office, boss = Client(), make_user(is_staff=True, is_superuser=True)
    office.force_login(boss)
    office.post(f"/admin/accounts/user/{person.pk}/change/", {"email": person.email, "name": person.name})


def is_in(browser: Client) -> bool:
    return browser.get("/people/profile/").status_code == 200


def ways_in(person: User) -> dict[str, Callable[[], bool]]:
    """Open each way to the account; return how to ask whether it is open still."""
    browser, secret = Client(), ApiToken.objects.make(person, "script")
    browser.force_login(person)
    pending = EmailConfirmationHMAC(EmailAddress.objects.create(user=person, email=THEIRS))
    confirm = f"/accounts/confirm-email/{pending.key}/"
    # After it, since the link is bound to the addresses as well.
    link = reset_link(person)

    def token() -> bool:
        return Client().get("/api/v1/orders/", headers={"Authorization": f"Bearer {secret}"}).status_code == 200

    def address() -> bool:
        Client().post(confirm)
        return User.objects.filter(pk=person.pk, email=THEIRS).exists()

    def new_password() -> bool:
        return bool(Client().get(link, follow=True).redirect_chain)

    return {"session": lambda: is_in(browser), "token": token, "link to reset": new_password, "new address": address}


@pytest.mark.parametrize("end", [change, reset, change_by_command, switch_off, services.anonymise])
def test_nothing_that_was_open_is_open_after(end: Callable[[User], Any]) -> None:
    person = verified(make_user())
    ways = ways_in(person)

    end(person)

    assert User.objects.filter(pk=person.pk, is_active=True, password=person.password).count() == 0
    assert {name for name, is_open in ways.items() if is_open()} == set()


def test_each_way_is_open_before() -> None:
    ways = ways_in(verified(make_user()))

    assert [name for name, is_open in ways.items() if not is_open()] == []


def test_password_that_is_only_hashed_anew_ends_nothing() -> None:
    person = verified(make_user())
    ways = ways_in(person)
    person.password = PBKDF2PasswordHasher().encode(PASSWORD, "salt", iterations=2)
    person.save()

    Client().post("/accounts/login/", {"login": person.email, "password": PASSWORD})

    person.refresh_from_db()
    assert (person.password.split("$")[1], ways["token"]()) == ("1", True)
