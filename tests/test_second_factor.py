"""Staff with a second factor: led to set one up, asked for it, kept out of everything until then."""

from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from accounts.models import AccountMail, ApiToken, User
from accounts.services import anonymise
from tests.factories import PASSWORD, make_user

pytestmark = pytest.mark.django_db(transaction=True)

FOR_STAFF = ["/admin/", "/dashboard/", "/reports/", "/try-it/", "/flower/", "/orders/"]
# Named like the pages of the second factor itself.
OF_THE_ADMIN = ["/admin/mfa/authenticator/", "/admin/account/emailaddress/", "/admin/account/emailaddress/add/"]
OURS = "/accounts/second-factor/"
ACTIVATE = f"{OURS}totp/activate/"


@pytest.fixture(autouse=True)
def required(settings: Any) -> None:
    cache.clear()
    settings.STAFF_SECOND_FACTOR = True


def code(secret: str) -> str:
    return format_hotp_value(hotp_value(secret, list(yield_hotp_counters_from_time())[1]))


def log_in(person: User) -> Client:
    client = Client()
    client.post("/accounts/login/", {"login": person.email, "password": PASSWORD})
    return client


def trusted(person: User) -> Client:
    """Return a client that has just given the password once more."""
    client = log_in(person)
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    return client


def where_to(answer: Any) -> str:
    return str(answer.headers.get("Location", "")).partition("?")[0]


def staff_with_app() -> tuple[User, str]:
    person = make_user(is_staff=True, is_superuser=True)
    secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    TOTP.activate(person, secret)
    return person, secret


@pytest.mark.parametrize("path", [*FOR_STAFF, *OF_THE_ADMIN, "/accounts/password/change/"])
def test_staff_without_it_is_led_to_set_one_up(path: str, staff: User) -> None:
    answer = log_in(staff).get(path)

    assert where_to(answer) == ACTIVATE


def test_staff_sets_one_up_and_is_let_in(staff: User) -> None:
    client = trusted(staff)
    page = client.get(ACTIVATE)
    secret = page.context["form"].secret

    answer = client.post(ACTIVATE, {"code": code(secret)}, follow=True)

    assert "data:image/svg+xml" in page.content.decode()
    assert answer.status_code == 200
    assert "Recovery codes" in answer.content.decode()
    assert [client.get(path).status_code for path in FOR_STAFF] == [200, 200, 200, 200, 302, 200]
    assert AccountMail.objects.filter(subject="Your second factor is on").exists()


def test_staff_with_it_signs_in_in_two_steps() -> None:
    person, secret = staff_with_app()
    client = log_in(person)

    before = client.get("/admin/")
    answer = client.post("/accounts/second-factor/authenticate/", {"code": code(secret)})

    assert where_to(before) == "/admin/login/"
    assert answer.status_code == 302
    assert client.get("/admin/").status_code == 200


def test_recovery_code_lets_in_once(staff: User) -> None:
    client = trusted(staff)
    client.post(ACTIVATE, {"code": code(client.get(ACTIVATE).context["form"].secret)})
    spare = Authenticator.objects.get(user=staff, type="recovery_codes").wrap().get_unused_codes()[0]

    answers = [log_in(staff).post("/accounts/second-factor/authenticate/", {"code": spare}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [302, 200]


def test_session_that_never_showed_it_is_asked(login: Callable[[User], Client]) -> None:
    person, secret = staff_with_app()
    client = login(person)

    asked = client.get("/admin/?q=1")
    client.post(asked.headers["Location"], {"code": code(secret)})

    assert where_to(asked) == "/accounts/second-factor/reauthenticate/"
    assert "next=%2Fadmin%2F%3Fq%3D1" in asked.headers["Location"]
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize(
    "path",
    [*OF_THE_ADMIN, OURS, ACTIVATE, f"{OURS}totp/deactivate/", f"{OURS}recovery-codes/", "/accounts/email/"],
)
def test_session_that_never_showed_it_cannot_replace_it(login: Callable[[User], Client], path: str) -> None:
    person, _ = staff_with_app()

    answers = [login(person).get(path), login(person).post(path)]

    assert [where_to(answer) for answer in answers] == ["/accounts/second-factor/reauthenticate/"] * 2


def test_admin_shows_no_secret_and_deletes(staff: User, settings: Any) -> None:
    settings.STAFF_SECOND_FACTOR = False
    person, _ = staff_with_app()
    row = Authenticator.objects.get(user=person, type=Authenticator.Type.TOTP)
    client = log_in(staff)

    page = client.get(f"/admin/mfa/authenticator/{row.pk}/change/").content.decode()
    changed = client.post(f"/admin/mfa/authenticator/{row.pk}/change/", {"data": "{}"})
    asked = client.get(f"/admin/mfa/authenticator/{row.pk}/delete/")
    client.post(f"/admin/mfa/authenticator/{row.pk}/delete/", {"post": "yes", "seen": asked.context["seen"]})

    assert (row.data["secret"] in page, "id_data" in page, changed.status_code) == (False, False, 403)
    assert not Authenticator.objects.filter(pk=row.pk).exists()


def test_part_of_a_page_has_the_whole_page_ask(staff: User) -> None:
    answer = log_in(staff).get("/dashboard/queues/", headers={"HX-Request": "true"})

    assert (answer.headers["HX-Refresh"], answer.content) == ("true", b"")


def test_flower_asks_for_it_too(login: Callable[[User], Client], settings: Any) -> None:
    person, secret = staff_with_app()
    client = login(person)

    asked = client.get("/flower/?next=/tasks")
    answer = client.post(asked.headers["Location"], {"code": code(secret)})
    sent = client.get(answer.headers["Location"])

    assert where_to(asked) == "/accounts/second-factor/reauthenticate/"
    assert "token" not in asked.headers["Location"]
    assert sent.headers["Location"].startswith(f"{settings.FLOWER_URL}/login?next=%2Ftasks&token=")


def test_customers_are_not_asked(customer: User) -> None:
    client = trusted(customer)

    assert [client.get(path).status_code for path in ("/dashboard/", "/orders/", ACTIVATE)] == [200, 200, 200]


def test_no_second_factor_is_asked_for_where_it_is_off(staff: User, settings: Any) -> None:
    settings.STAFF_SECOND_FACTOR = False

    assert log_in(staff).get("/admin/").status_code == 200


def test_admin_has_no_login_page_of_its_own(customer: User) -> None:
    stranger = Client().get("/admin/", follow=True)
    refused = log_in(customer).get("/admin/", follow=True)

    assert stranger.request["PATH_INFO"] == reverse("account_login")
    assert refused.status_code == 403


def test_deleted_account_keeps_no_second_factor() -> None:
    person, _ = staff_with_app()

    anonymise(person)

    assert not Authenticator.objects.filter(user=person).exists()


@pytest.mark.parametrize(
    "path", ["", "totp/activate/", "totp/deactivate/", "recovery-codes/", "recovery-codes/generate/", "reauthenticate/"]
)
def test_pages_are_in_the_shops_frame(path: str, staff: User) -> None:
    client = trusted(staff)
    if path not in ("totp/activate/",):
        client.post(ACTIVATE, {"code": code(client.get(ACTIVATE).context["form"].secret)})

    page = client.get(f"/accounts/second-factor/{path}")

    assert page.status_code == 200
    assert 'class="site-header"' in page.content.decode()


def test_token_that_staff_made_as_a_customer_opens_nothing_before_there_is_an_app(customer: User) -> None:
    headers = {"Authorization": f"Bearer {ApiToken.objects.make(customer, 'script')}"}
    before = Client().get("/api/v1/orders/", headers=headers).status_code
    User.objects.update(is_staff=True)

    without = Client().get("/api/v1/orders/", headers=headers).status_code
    TOTP.activate(customer, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")

    assert (before, without) == (200, 401)
    assert Client().get("/api/v1/orders/", headers=headers).status_code == 200
