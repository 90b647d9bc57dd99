"""The profile, and the one address that changes when the new one is verified."""

import re
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.messages import get_messages
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import AccountMail, CrmContact, CrmStatus, User
from accounts.services import anonymise
from tests.broker import Broker
from tests.factories import PASSWORD, make_user

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]


@pytest.fixture(autouse=True)
def no_rate_limits() -> None:
    cache.clear()


@pytest.fixture
def alice() -> User:
    person = make_user(email="alice@example.com", name="Alice")
    EmailAddress.objects.create(user=person, email=person.email, primary=True, verified=True)
    return person


@pytest.fixture
def client(alice: User) -> Client:
    return trusted(alice)


def trusted(person: User) -> Client:
    """Return a client that has just given the password."""
    client = Client()
    client.post("/accounts/login/", {"login": person.email, "password": PASSWORD})
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    return client


def change_address(client: Client, email: str) -> Any:
    return client.post("/accounts/email/", {"email": email, "action_add": ""})


def follow_link(client: Client, to: str) -> Any:
    """Follow the newest link that was mailed to the address."""
    text = AccountMail.objects.filter(to=to).order_by("pk").last().text  # type: ignore[union-attr]
    return client.post(re.findall(r"https?://[^/\s]+(/accounts/confirm-email/\S+)", text)[0])


def addresses(person: User) -> list[tuple[str, bool, bool]]:
    rows = EmailAddress.objects.filter(user=person).order_by("pk")
    return list(rows.values_list("email", "verified", "primary"))


def address_of(person: User) -> str:
    return User.objects.get(pk=person.pk).email


# --- Name ---


@pytest.mark.parametrize("name", ["Alice Liddell", "", "Ålice <b>& co</b> 🏮"])
def test_profile_saves_the_name(name: str, client: Client, alice: User) -> None:
    answer = client.post("/people/profile/", {"name": name})

    alice.refresh_from_db()
    assert (answer["Location"], alice.name) == ("/people/profile/", name)


@pytest.mark.django_db(transaction=True)
def test_profile_has_the_crm_told_of_the_new_name(client: Client, alice: User, broker: Broker) -> None:
    client.post("/people/profile/", {"name": "Alice Liddell"})

    assert broker.messages() == [("default", "accounts.tasks.sync_user_to_crm", {"user_id": alice.pk})]
    assert CrmContact.objects.get().status == CrmStatus.WAITING


@pytest.mark.parametrize("name", ["x" * 101, "a\0b"])
def test_profile_explains_what_cannot_be_a_name(name: str, client: Client, alice: User) -> None:
    answer = client.post("/people/profile/", {"name": name})

    alice.refresh_from_db()
    assert (answer.status_code, list(answer.context["form"].errors), alice.name) == (200, ["name"], "Alice")


def test_profile_changes_nothing_but_what_the_form_knows(client: Client, alice: User) -> None:
    client.post("/people/profile/", {"name": "Al", "is_staff": "on", "email": "root@example.com"})

    alice.refresh_from_db()
    assert (alice.name, alice.is_staff, alice.email) == ("Al", False, "alice@example.com")


def test_profile_gives_no_name_to_who_is_gone(client: Client, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    # The account is deleted in another window while this request is under way.
    monkeypatch.setattr("accounts.views.ProfileForm.is_valid", lambda form: form.full_clean() or anonymise(alice))

    client.post("/people/profile/", {"name": "Alice again"})

    assert User.objects.get(pk=alice.pk).name == ""


def test_profile_needs_a_login_and_no_other_method() -> None:
    client = Client()

    assert client.get("/people/profile/")["Location"] == "/accounts/login/?next=/people/profile/"
    client.force_login(make_user())
    assert client.put("/people/profile/").status_code == 405


def test_profile_makes_few_queries(client: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        page = client.get("/people/profile/")

    # The session, the person, what is in the basket, and the row that the form works on.
    assert (page.status_code, len(queries)) == (200, 4)


# --- Address ---


def test_address_changes_when_the_new_one_is_verified(client: Client, alice: User) -> None:
    change_address(client, "New@Example.com")
    before = address_of(alice)

    follow_link(client, "new@example.com")

    assert (before, address_of(alice)) == ("alice@example.com", "new@example.com")
    assert addresses(alice) == [("new@example.com", True, True)]


def test_old_address_is_told_of_the_change(client: Client, alice: User) -> None:
    change_address(client, "new@example.com")
    follow_link(client, "new@example.com")

    told = AccountMail.objects.get(to="alice@example.com")
    assert (told.user, told.subject) == (alice, "Your e-mail address is changed at Lantern & Loom")
    assert "from alice@example.com to new@example.com" in told.text
    assert "Hello Alice" in told.text
    assert "Hello <bdi>Alice</bdi>" in told.html


def test_person_signs_in_with_the_new_address_only(client: Client, alice: User) -> None:
    change_address(client, "new@example.com")
    follow_link(client, "new@example.com")

    def can_sign_in(email: str) -> bool:
        visitor = Client()
        visitor.post("/accounts/login/", {"login": email, "password": PASSWORD})
        return "_auth_user_id" in visitor.session

    assert (can_sign_in("alice@example.com"), can_sign_in("new@example.com")) == (False, True)


@pytest.mark.parametrize("verified", [True, False])
def test_nothing_is_lost_when_the_new_address_is_never_verified(verified: bool, client: Client, alice: User) -> None:
    EmailAddress.objects.update(verified=verified)
    for email in ("typo@example.com", "other@example.com"):
        change_address(client, email)

    assert address_of(alice) == "alice@example.com"
    assert addresses(alice) == [("alice@example.com", verified, True), ("other@example.com", False, False)]


def test_link_to_an_address_that_was_given_up_does_not_work(client: Client, alice: User) -> None:
    for email in ("typo@example.com", "other@example.com"):
        change_address(client, email)

    answer = follow_link(client, "typo@example.com")

    assert (answer.status_code, address_of(alice)) == (404, "alice@example.com")


def test_change_is_called_off(client: Client, alice: User) -> None:
    change_address(client, "new@example.com")

    client.post("/accounts/email/", {"email": "new@example.com", "action_remove": ""})

    assert addresses(alice) == [("alice@example.com", True, True)]


def test_address_in_use_is_never_removed(client: Client, alice: User) -> None:
    EmailAddress.objects.update(verified=False, primary=False)
    change_address(client, "new@example.com")

    client.post("/accounts/email/", {"email": "alice@example.com", "action_remove": ""})

    assert (address_of(alice), len(addresses(alice))) == ("alice@example.com", 2)


@pytest.mark.parametrize(
    ("email", "message"),
    [
        ("bob@example.com", "A user is already registered with this email address."),
        ("BOB@example.com", "A user is already registered with this email address."),
        ("alice@example.com", "This email address is already associated with this account."),
        ("nobody", "Enter a valid email address."),
        ("", "This field is required."),
    ],
)
def test_address_form_explains_when_it_cannot_be(email: str, message: str, client: Client, alice: User) -> None:
    make_user(email="bob@example.com")

    answer = change_address(client, email)

    assert (answer.status_code, len(addresses(alice))) == (200, 1)
    assert answer.context["form"].errors == {"email": [message]}


def test_address_stays_when_somebody_else_registered_with_it_meanwhile(client: Client, alice: User) -> None:
    change_address(client, "new@example.com")
    make_user(email="new@example.com")

    answer = follow_link(client, "new@example.com")

    assert (answer.status_code, address_of(alice)) == (302, "alice@example.com")
    assert addresses(alice)[0] == ("alice@example.com", True, True)
    assert "Unable to confirm new@example.com" in " ".join(map(str, get_messages(answer.wsgi_request)))


def test_address_needs_the_password_once_more(alice: User, login: Login) -> None:
    answer = change_address(login(alice), "new@example.com")

    assert answer["Location"] == "/accounts/reauthenticate/?next=%2Faccounts%2Femail%2F"
    assert EmailAddress.objects.filter(email="new@example.com").exists() is False


def test_address_page_says_what_it_waits_for(client: Client) -> None:
    change_address(client, "new@example.com")

    page = client.get("/accounts/email/").content.decode()

    assert "Waiting for <bdi>new@example.com</bdi>" in page
    assert page.count("alice@example.com") == 1


def test_address_that_staff_changed_is_the_one_allauth_knows(alice: User, staff: User, login: Login) -> None:
    office, data = login(staff), {"email": "staff-set@example.com", "name": "Alice", "is_active": "on"}

    office.post(f"/admin/accounts/user/{alice.pk}/change/", data)

    trusted(User.objects.get(pk=alice.pk)).get("/accounts/email/")
    assert addresses(alice) == [("staff-set@example.com", False, False)]


# --- Notices ---


@pytest.mark.django_db(transaction=True)
def test_new_password_undoes_nothing_that_happens_while_it_is_hashed(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, hash_password = make_user(wants_digest=True), User.set_password

    def slowly(user: User, password: str | None) -> None:
        def leave() -> None:
            User.objects.filter(pk=person.pk).update(wants_digest=False, mail_sent_at=timezone.now())
            connection.close()

        hash_password(user, password)
        other = Thread(target=leave)
        other.start()
        other.join()

    monkeypatch.setattr(User, "set_password", slowly)
    login(person).post(
        "/accounts/password/change/",
        {"oldpassword": PASSWORD, "password1": "quite-new-words-7", "password2": "quite-new-words-7"},
    )

    person.refresh_from_db()
    assert person.check_password("quite-new-words-7")
    assert (person.wants_digest, person.mail_sent_at is not None) == (False, True)


def test_new_password_is_told(client: Client, alice: User) -> None:
    new = {"oldpassword": PASSWORD, "password1": "another-good-one", "password2": "another-good-one"}

    client.post("/accounts/password/change/", new)

    told = AccountMail.objects.get(to="alice@example.com")
    assert (told.subject, "</p>" in told.html, told.user) == ("Your password is changed at Lantern & Loom", True, alice)
