import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.messages import get_messages
from django.core import mail as outbox
from django.core.cache import cache
from django.db import IntegrityError, transaction
from django.db.models import Value
from django.db.models.functions import Upper
from django.test import Client
from django.utils import timezone

from accounts import tasks
from accounts.models import AccountMail, User
from accounts.schedules import SCHEDULES
from durable import mail
from tests.broker import Broker
from tests.factories import PASSWORD, make_mail, make_notification, make_user

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_rate_limits() -> None:
    cache.clear()


def sign_up(client: Client, **fields: str) -> Any:
    data = {"email": "alice@example.com", "name": "Alice", "password1": PASSWORD, "password2": PASSWORD}
    return client.post("/accounts/signup/", data | fields)


def log_in(client: Client, email: str, password: str = PASSWORD) -> Any:
    return client.post("/accounts/login/", {"login": email, "password": password})


def is_logged_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def messages_of(answer: Any) -> list[str]:
    return [str(message) for message in get_messages(answer.wsgi_request)]


def link_in(row: AccountMail) -> str:
    """Return the path of the one-time link that the mail holds."""
    return re.findall(r"https?://[^/\s]+(/accounts/\S+)", row.text)[0]


# --- Registration ---


def test_signup_makes_a_user_who_is_logged_in_and_greeted(client: Client) -> None:
    answer = sign_up(client)

    user = User.objects.get()
    assert (user.email, user.name, user.is_staff, user.check_password(PASSWORD)) == (
        "alice@example.com",
        "Alice",
        False,
        True,
    )
    assert (answer.status_code, answer["Location"], is_logged_in(client)) == (302, "/dashboard/", True)
    assert "Successfully signed in as Alice." in messages_of(answer)


def test_signup_owes_the_welcome_and_writes_the_verification(client: Client) -> None:
    sign_up(client)

    row = AccountMail.objects.get()
    assert list(User.objects.mail_due()) == [User.objects.get()]
    assert list(AccountMail.objects.mail_due()) == [row]
    assert (row.to, "/accounts/confirm-email/" in row.text, "</" in row.html) == ("alice@example.com", True, True)
    assert outbox.outbox == []


@pytest.mark.django_db(transaction=True)
def test_signup_queues_both_mails_and_tells_the_crm(client: Client, broker: Broker) -> None:
    sign_up(client)

    user, row = User.objects.get(), AccountMail.objects.get()
    assert sorted(broker.messages()) == [
        ("default", "accounts.tasks.sync_user_to_crm", {"user_id": user.pk}),
        ("mail", "accounts.tasks.send_account_email", {"mail_id": row.pk}),
        ("mail", "accounts.tasks.send_welcome_email", {"user_id": user.pk}),
    ]


@pytest.mark.django_db(transaction=True)
def test_signup_works_when_the_broker_is_away(client: Client, broker: Broker) -> None:
    broker.use("redis://127.0.0.1:1/0")

    answer = sign_up(client)

    assert answer["Location"] == "/dashboard/"
    assert (User.objects.mail_due().count(), AccountMail.objects.mail_due().count()) == (1, 1)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"email": "bob@example.com"}, "email", "A user is already registered with this email address."),
        ({"email": "BOB@Example.com"}, "email", "A user is already registered with this email address."),
        ({"email": "nobody"}, "email", "Enter a valid email address."),
        ({"email": ""}, "email", "This field is required."),
        ({"password2": "something-else"}, "password2", "You must type the same password each time."),
        ({"name": "x" * 101}, "name", "Ensure this value has at most 100 characters (it has 101)."),
        # A letter that Unicode writes as two.
        ({"name": "\u0958" * 51}, "name", "Ensure this value has at most 100 characters (it has 102)."),
        ({"name": "Bob\a"}, "name", "This text holds the character U+0007, which cannot be shown."),
    ],
)
def test_signup_explains_when_it_cannot_be(fields: dict[str, str], field: str, message: str, client: Client) -> None:
    make_user(email="bob@example.com", password="words-of-bob-7")

    answer = sign_up(client, **fields)

    assert (answer.status_code, User.objects.count(), is_logged_in(client)) == (200, 1, False)
    assert answer.context["form"].errors == {field: [message]}
    assert message.split(" (")[0] in answer.content.decode()


@pytest.mark.parametrize("password", ["short", "password123", "alice@example.com"])
def test_signup_refuses_a_weak_password(password: str, client: Client) -> None:
    answer = sign_up(client, password1=password, password2=password)

    assert (list(answer.context["form"].errors), User.objects.count()) == (["password1"], 0)


def test_signup_link_verifies_the_address(client: Client) -> None:
    sign_up(client)
    path = link_in(AccountMail.objects.get())

    page = client.get(path)
    client.post(path)

    assert page.status_code == 200
    assert User.objects.get().emailaddress_set.get().verified is True


# --- Logging in and out ---


@pytest.mark.parametrize("email", ["alice@example.com", "Alice@Example.COM"])
def test_login_leads_to_the_dashboard(email: str, client: Client) -> None:
    make_user(email="alice@example.com")

    answer = log_in(client, email)

    assert (answer.status_code, answer["Location"], is_logged_in(client)) == (302, "/dashboard/", True)


@pytest.mark.parametrize(
    ("email", "password"), [("alice@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("alice@example.com", "")]
)
def test_login_explains_when_the_credentials_are_wrong(email: str, password: str, client: Client) -> None:
    make_user(email="alice@example.com")

    answer = log_in(client, email, password)

    assert (answer.status_code, is_logged_in(client)) == (200, False)
    assert list(answer.context["form"].errors.values()) == [
        ["The email address and/or password you specified are not correct."]
        if password
        else ["This field is required."]
    ]


def test_login_is_refused_when_the_account_is_switched_off(client: Client) -> None:
    make_user(email="alice@example.com", is_active=False)

    answer = log_in(client, "alice@example.com")

    assert is_logged_in(client) is False
    assert "switched off" in client.get(answer["Location"]).content.decode()


def test_login_leads_back_to_where_one_wanted_to_go(client: Client) -> None:
    make_user(email="alice@example.com")

    answer = client.post("/accounts/login/?next=/orders/", {"login": "alice@example.com", "password": PASSWORD})

    assert answer["Location"] == "/orders/"


ELSEWHERE = [
    *(
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "///evil.example",
        "http:///evil.example",
    ),
    *(
        "https:evil.example",
        "javascript:alert(1)",
        "http://testserver@evil.example",
        "http://testserver:80@evil.example",
    ),
    *("http://testserver\\@evil.example", "ftp://testserver/", "https://[", "https://[testserver]/", "http://\u2100/"),
]


@pytest.mark.parametrize("page", ELSEWHERE)
def test_login_and_logout_never_lead_to_another_site(page: str, client: Client) -> None:
    make_user(email="alice@example.com")

    shown = client.get("/accounts/login/", {"next": page})
    answers = [
        client.post("/accounts/login/", {"login": "alice@example.com", "password": PASSWORD, "next": page}),
        client.post("/accounts/reauthenticate/", {"password": PASSWORD, "next": page}),
        client.post("/accounts/logout/", {"next": page}),
    ]

    assert shown.status_code == 200
    assert [answer["Location"] for answer in answers] == ["/dashboard/", "/dashboard/", "/"]


def test_login_is_slowed_down_after_many_failures(client: Client) -> None:
    make_user(email="alice@example.com")
    for number in range(10):
        log_in(client, "alice@example.com", f"wrong{number}")

    answer = log_in(client, "alice@example.com")

    assert is_logged_in(client) is False
    assert answer.context["form"].errors["__all__"] == [
        "Too many attempts. Please try again in five minutes, or reset your password."
    ]


def test_logout_needs_a_post(login: Callable[[User], Client], customer: User) -> None:
    client = login(customer)

    asked = client.get("/accounts/logout/")
    between = is_logged_in(client)
    done = client.post("/accounts/logout/")

    assert (asked.status_code, between) == (200, True)
    assert (done["Location"], is_logged_in(client)) == ("/", False)


# --- Passwords ---


def test_password_reset_writes_a_mail_whose_link_sets_a_new_password(client: Client) -> None:
    user = make_user(email="alice@example.com")

    answer = client.post("/accounts/password/reset/", {"email": "alice@example.com"})
    form = client.get(link_in(AccountMail.objects.get()), follow=True)
    client.post(form.redirect_chain[-1][0], {"password1": "another-good-one", "password2": "another-good-one"})

    user.refresh_from_db()
    assert answer["Location"] == "/accounts/password/reset/done/"
    assert AccountMail.objects.order_by("pk")[0].to == "alice@example.com"
    assert user.check_password("another-good-one")


def test_password_reset_does_not_tell_who_is_a_customer(client: Client) -> None:
    make_user(email="alice@example.com")

    answers = [
        client.post("/accounts/password/reset/", {"email": email})
        for email in ("alice@example.com", "nobody@example.com")
    ]

    assert answers[0]["Location"] == answers[1]["Location"]


@pytest.mark.parametrize(
    "path", ["/accounts/email/", "/accounts/password/change/", "/accounts/reauthenticate/", "/accounts/inactive/"]
)
def test_account_page_answers(path: str, client: Client, customer: User) -> None:
    log_in(client, customer.email)

    assert client.get(path).status_code == 200


# --- Mail tasks ---


@pytest.mark.proves("accounts.tasks.send_welcome_email", "twice", page="admin:accounts_user_changelist")
def test_send_welcome_email_twice_is_once() -> None:
    user = make_user(mail_due_at=timezone.now())

    for _ in range(2):
        tasks.send_welcome_email.apply(kwargs={"user_id": user.pk}).get()

    user.refresh_from_db()
    assert [message.to for message in outbox.outbox] == [[user.email]]
    assert user.mail_sent_at is not None


@pytest.mark.proves("accounts.tasks.send_account_email", "twice", page="admin:accounts_accountmail_changelist")
def test_send_account_email_twice_is_once() -> None:
    row = make_mail(subject="Confirm")

    for _ in range(2):
        tasks.send_account_email.apply(kwargs={"mail_id": row.pk}).get()

    assert [message.subject for message in outbox.outbox] == ["Confirm"]


def test_check_unsent_mail_queues_what_is_owed(broker: Broker) -> None:
    owed, row = make_user(mail_due_at=timezone.now()), make_mail()
    make_user()
    make_mail(mail_sent_at=timezone.now())

    tasks.check_unsent_mail()

    assert broker.messages() == [
        ("mail", "accounts.tasks.send_welcome_email", {"user_id": owed.pk}),
        ("mail", "accounts.tasks.send_account_email", {"mail_id": row.pk}),
    ]


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (lambda: make_user(mail_due_at=timezone.now()), tasks.send_welcome_email),
        (make_mail, tasks.send_account_email),
    ],
)
def test_check_unsent_mail_queues_one_message_for_fifty(make: Callable[[], Any], task: Any, broker: Broker) -> None:
    for _ in range(mail.BATCH + 1):
        make()

    tasks.check_unsent_mail()

    messages = broker.messages()
    for _, _, kwargs in messages:
        task.apply(kwargs=kwargs).get()
    assert (len(messages), len(outbox.outbox)) == (2, mail.BATCH + 1)


def test_check_unsent_mail_has_its_messages_dropped_before_the_next_one(broker: Broker) -> None:
    make_user(mail_due_at=timezone.now())
    make_mail()
    make_notification()

    tasks.check_unsent_mail()

    schedule: Any = SCHEDULES["Check unsent mail"]
    expiries = broker.expiries()
    assert (len(expiries), min(expiries) > 0) == (3, True)
    assert max(expiries) < schedule.when.total_seconds()


@pytest.mark.proves("accounts.tasks.check_unsent_mail", "twice")
def test_check_unsent_mail_twice_sends_each_mail_once(broker: Broker) -> None:
    make_mail()
    for _ in range(2):
        tasks.check_unsent_mail()

    for _, _, kwargs in broker.messages():
        tasks.send_account_email.apply(kwargs=kwargs).get()

    assert len(outbox.outbox) == 1


# --- People ---


def test_database_refuses_the_same_address_in_another_case() -> None:
    make_user(email="alice@example.com")
    bob = User.objects.filter(pk=make_user().pk)

    with pytest.raises(IntegrityError, match="accounts_user_email_key"), transaction.atomic():
        bob.update(email="ALICE@example.com")
    with pytest.raises(IntegrityError, match="user_email_unique_in_any_case"), transaction.atomic():
        bob.update(email=Upper(Value("alice@example.com")))


@pytest.mark.parametrize("door", ["command", "admin"])
def test_person_with_capitals_in_the_address_signs_in(door: str, client: Client) -> None:
    if door == "command":
        User.objects.create_superuser("Ann.Lee@Example.com", PASSWORD)
    else:
        client.force_login(make_user(is_staff=True, is_superuser=True))
        client.post("/admin/accounts/user/add/", {"email": "Ann.Lee@Example.com", "name": "Ann"})
        User.objects.filter(name="Ann").update(password=make_password(PASSWORD))
        client.logout()

    answer = client.post("/accounts/login/", {"login": "Ann.Lee@Example.com", "password": PASSWORD})

    assert (answer.status_code, answer.headers["Location"]) == (302, "/dashboard/")


def test_superuser_may_enter_the_admin() -> None:
    user = User.objects.create_superuser("root@EXAMPLE.com", PASSWORD)

    assert (user.email, user.is_staff, user.is_superuser) == ("root@example.com", True, True)


@pytest.mark.parametrize(("name", "shown"), [("Alice", "Alice"), ("", "alice@example.com")])
def test_person_is_called_by_name_or_address(name: str, shown: str) -> None:
    user = make_user(email="alice@example.com", name=name)

    assert [str(user), user.get_full_name(), user.get_short_name()] == [shown] * 3
