"""What is sent twice at once answers as if it were sent once, and no two pass a rule about other rows together."""

import re
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from io import BytesIO
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from django.conf import settings as project
from django.contrib import admin
from django.core.cache import cache
from django.db import connections
from django.test import Client

from accounts.models import AccountMail, User
from myproject.alerting.models import DeadLetter
from orders.models import Card, Order, Payment, Product, ProductImport, Status
from orders.models import Kind as Event
from reports import erasure, services
from reports.forms import months_over
from reports.models import OPEN, Format, Kind, Pack, Report, ReportSchedule, TooMany
from tests.attack.addresses import client_of, make_person
from tests.broker import Broker
from tests.factories import PASSWORD, make_letter, make_product, make_user, place_order, put

pytest_plugins = ["tests.broker"]
pytestmark = [pytest.mark.attack, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker")]

TWICE = 2
LETTERS = "/admin/myproject/deadletter/"
ROUNDS = range(3)
# A person with all three can see to everything.
RIGHTS = ("is_superuser", "is_staff", "is_active")


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make the calls at the same moment, each with a connection of its own; return what they return or raise."""
    gate = threading.Barrier(len(calls))

    def one(call: Callable[[], Any]) -> Any:
        try:
            gate.wait()
            return call()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


@pytest.fixture(autouse=True)
def no_rate_limits() -> None:
    cache.clear()


def twice(person: User | None, path: str, data: dict[str, Any]) -> list[tuple[int, str]]:
    """Send the form twice at once from one browser; return what each answers, and where it leads."""
    fresh = client_of(person)
    return twice_from(fresh, path, data)


def twice_from(fresh: Callable[[], Client], path: str, data: dict[str, Any]) -> list[tuple[int, str]]:
    browsers = [fresh() for _ in range(TWICE)]
    answers = at_once([lambda browser=browser: browser.post(path, data) for browser in browsers])  # type: ignore[misc]
    return [(answer.status_code, answer.headers.get("Location", "")) for answer in answers]


def reauthenticated(person: User) -> Callable[[], Client]:
    """Return the browser of somebody who has just signed in with their password."""
    client = client_of(person)()
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})

    def fresh() -> Client:
        copy = Client(raise_request_exception=False)
        copy.cookies = type(client.cookies)(client.cookies.output(header="", sep=";"))
        return copy

    return fresh


# --- Forms ---


@pytest.mark.parametrize("number", ROUNDS)
def test_register(number: int) -> None:
    fields = {"email": f"new{number}@example.com", "password1": PASSWORD, "password2": PASSWORD}

    answers = twice(None, "/accounts/signup/", fields)

    assert answers == [(302, "/dashboard/")] * TWICE
    assert User.objects.count() == 1
    assert AccountMail.objects.count() == 1


def test_register_twice_with_another_password_is_refused() -> None:
    fields = {"email": "new@example.com", "password1": PASSWORD, "password2": PASSWORD}
    Client().post("/accounts/signup/", fields)

    answer = Client().post("/accounts/signup/", fields | {"password1": "other-words-9", "password2": "other-words-9"})

    assert (answer.status_code, "_auth_user_id" in answer.client.session) == (200, False)


@pytest.mark.parametrize("number", ROUNDS)
def test_activate_an_app(number: int) -> None:
    person = make_user()
    fresh = reauthenticated(person)
    page = fresh().get("/accounts/second-factor/totp/activate/").content.decode()
    found = re.search(r"\b[A-Z2-7]{32}\b", page)
    assert found is not None
    code = totp.format_hotp_value(totp.hotp_value(found[0], next(totp.yield_hotp_counters_from_time())))

    answers = twice_from(fresh, "/accounts/second-factor/totp/activate/", {"code": code})

    # A code is good for once: where both came before either was done, the second is told so.
    assert {status for status, _ in answers} <= {200, 302}
    assert Authenticator.objects.filter(type=Authenticator.Type.TOTP).count() == 1


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/people/preferences/", {"wants_digest": "on"}),
        ("/people/profile/", {"name": "New"}),
        ("/people/data/", {}),
        ("/reports/statement/", {"format": Format.PDF, "start": "2026-01-01", "end": "2026-01-31"}),
    ],
)
def test_forms_of_a_customer(path: str, fields: dict[str, str]) -> None:
    answers = twice(make_person("customer"), path, fields)

    assert (len(set(answers)), answers[0][0]) == (1, 302)
    assert Report.objects.count() == (1 if path in ("/people/data/", "/reports/statement/") else 0)


@pytest.mark.parametrize("number", ROUNDS)
def test_change_address(number: int) -> None:
    answers = twice_from(reauthenticated(make_user()), "/accounts/email/", {"email": "b@example.com", "action_add": ""})

    assert answers == [(302, "/accounts/email/")] * TWICE
    assert AccountMail.objects.count() == 1


def test_change_password() -> None:
    person = make_user()
    fields = {"oldpassword": PASSWORD, "password1": "quite-new-words-7", "password2": "quite-new-words-7"}

    answers = twice_from(reauthenticated(person), "/accounts/password/change/", fields)

    person.refresh_from_db()
    assert person.check_password("quite-new-words-7")
    assert {status for status, _ in answers} <= {200, 302}


def test_checkout_is_one_order() -> None:
    person, product = make_person("customer"), make_product(stock=10)
    fresh = client_of(person)
    fresh().post(f"/basket/add/{product.slug}/", {"quantity": "1"})

    contents = fresh().get("/checkout/").context["basket"].fingerprint
    fields = {"card": Card.VISA, "token": str(uuid.uuid4()), "contents": contents}

    answers = twice_from(fresh, "/checkout/", fields)

    assert len(set(answers)) == 1
    assert (Order.objects.count(), Payment.objects.count()) == (1, 1)


@pytest.mark.parametrize("number", ROUNDS)
def test_pay_again_is_one_attempt(number: int) -> None:
    person = make_person("customer")
    order = put(place_order(customer=person), Status.PAYMENT_FAILED)
    Payment.objects.update(status="declined")

    answers = twice(person, f"/orders/{order.reference}/pay/", {"card": Card.VISA})

    assert answers == [(302, f"/orders/{order.reference}/")] * TWICE
    assert Payment.objects.count() == 2


@pytest.mark.parametrize("act", ["nudge", "replay", "unflag", "refund"])
def test_buttons_of_support(act: str) -> None:
    order = put(place_order(), Status.COMPLETED)

    answers = twice(make_person("support"), f"/orders/{order.reference}/{act}/", {})

    assert answers == [(302, f"/orders/{order.reference}/")] * TWICE


def test_import_is_one_import() -> None:
    fresh, token = client_of(make_person("warehouse")), str(uuid.uuid4())

    def send() -> Any:
        file = BytesIO(b"sku,name,price,stock,category\nA,Lamp,1.00,1,Light\n")
        file.name = "products.csv"
        return fresh().post("/imports/", {"file": file, "token": token})

    answers = at_once([send] * TWICE)

    assert {answer.status_code for answer in answers} == {302}
    assert ProductImport.objects.count() == 1


@pytest.mark.parametrize("number", ROUNDS)
def test_schedule_report_and_pack_are_one(number: int) -> None:
    person = make_person("accounting")
    schedule = {"name": "Mondays", "kind": Kind.STOCK, "format": Format.PDF, "period": "last_week", "every": "day"}
    assert person is not None
    schedule |= {"at": "08:00", "time_zone": "UTC", "recipients": str(person.pk), "token": str(uuid.uuid4())}
    report = {"kind": Kind.STOCK, "format": Format.PDF}

    made = [twice(person, "/reports/schedules/", schedule), twice(person, "/reports/", report)]
    made.append(twice(person, "/reports/packs/", {"month": str(months_over()[0])}))

    assert [(len(set(answers)), answers[0][0]) for answers in made] == [(1, 302)] * 3
    assert (ReportSchedule.objects.count(), Report.objects.filter(pack=None).count(), Pack.objects.count()) == (1, 1, 1)


@pytest.mark.parametrize("model", ["orders/product"])
def test_form_of_the_admin(model: str) -> None:
    fields = {
        "sku": "A-1",
        "name": "Lamp",
        "category": "Light",
        "price": "1.00",
        "is_active": "on",
        "adjust_stock": "0",
    }

    answers = twice(make_person("administrator"), f"/admin/{model}/add/", fields)

    assert {status for status, _ in answers} <= {200, 302}
    assert Product.objects.count() == 1


@pytest.mark.parametrize("number", ROUNDS)
@pytest.mark.parametrize("by", [5, -10])
def test_stock_is_adjusted_once(by: int, number: int) -> None:
    product, fresh = make_product(stock=10), client_of(make_person("warehouse"))
    path = f"/admin/orders/product/{product.pk}/change/"
    form = fresh().get(path).context["adminform"].form
    fields = {name: form[name].value() or "" for name in ("sku", "name", "category", "description", "price", "token")}

    answers = twice_from(fresh, path, fields | {"is_active": "on", "adjust_stock": str(by)})

    product.refresh_from_db()
    assert ([status for status, _ in answers], product.stock) == ([302] * TWICE, 10 + by)


def test_delete_account() -> None:
    person = make_user()

    sure = {"password": PASSWORD, "confirmation": "delete", "seen": erasure.shown(person)}
    answers = twice(person, "/people/delete/", sure)

    person.refresh_from_db()
    assert (answers, person.is_active) == ([(302, "/")] * TWICE, False)


@pytest.mark.parametrize("number", ROUNDS)
def test_dead_letter_that_two_send_again_at_once_is_sent_once(number: int, broker: Broker) -> None:
    letter = make_letter()
    people = [client_of(make_person("administrator"))() for _ in range(4)]
    fields = {"action": "send_again", "_selected_action": [str(letter.pk)]}

    at_once([lambda browser=browser: browser.post(LETTERS, fields) for browser in people])  # type: ignore[misc]

    assert (sum(broker.lengths().values()), DeadLetter.objects.count()) == (1, 0)


@pytest.mark.parametrize("number", ROUNDS)
def test_order_that_two_queue_again_at_once_has_one_event(number: int) -> None:
    order, people = place_order(), [client_of(make_person("support"))() for _ in range(4)]

    at_once([lambda browser=browser: browser.post(f"/orders/{order.reference}/nudge/") for browser in people])  # type: ignore[misc]

    assert order.events.filter(kind=Event.REQUEUED).count() == 1


# --- Rules about other rows ---


@pytest.mark.parametrize("number", ROUNDS)
def test_one_administrator_is_left_when_all_leave_at_once(number: int) -> None:
    people = [make_user(is_staff=True, is_superuser=True) for _ in range(4)]

    at_once([lambda person=person: erasure.close_account(person) for person in people])  # type: ignore[misc]

    assert User.objects.filter(is_superuser=True, is_active=True).count() == 1


@pytest.mark.parametrize("right", RIGHTS)
def test_one_administrator_is_left_when_all_step_down_in_the_admin(right: str) -> None:
    people = [make_user(is_staff=True, is_superuser=True) for _ in range(3)]
    fields = {"name": "Sam"} | {name: "on" for name in RIGHTS if name != right}

    def step_down(person: User) -> Callable[[], Any]:
        path = f"/admin/accounts/user/{person.pk}/change/"
        return lambda: client_of(person)().post(path, fields | {"email": person.email})

    at_once([step_down(person) for person in people])

    assert User.objects.filter(**dict.fromkeys(RIGHTS, True)).count() == 1


def test_account_that_its_owner_deletes_while_staff_saves_it_stays_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    person, office = make_user(name="Ann"), client_of(make_user(is_staff=True, is_superuser=True))()
    form, saved = {"email": person.email, "name": "Anna", "is_active": "on"}, admin.site._registry[User].save_model
    waiting: list[Any] = []

    def save(*args: Any) -> None:
        waiting.append(ThreadPoolExecutor(1).submit(leave, person))
        # It ends at once where nothing holds it up; otherwise with this transaction.
        wait(waiting, timeout=1)
        saved(*args)

    monkeypatch.setattr(admin.site._registry[User], "save_model", save)

    office.post(f"/admin/accounts/user/{person.pk}/change/", form)

    closed = waiting[0].result(timeout=10)
    person.refresh_from_db()
    assert (closed, person.name, person.is_active) == (True, "", False)


def leave(person: User) -> bool:
    try:
        return erasure.close_account(person)
    finally:
        connections.close_all()


def test_cap_of_reports_holds_for_all_who_ask_at_once() -> None:
    person, most = make_user(), project.REPORTS_OPEN_MOST
    days = [f"2026-{month:02}-{day:02}" for month in (1, 2) for day in range(1, 21)]
    asked = [{"kind": Kind.SALES, "format": Format.CSV, "start": day, "end": day} for day in days]

    got = at_once([lambda what=what: services.ask_for(person, **what) for what in asked])  # type: ignore[misc]

    assert Report.objects.filter(status__in=OPEN).count() == most
    assert sum(isinstance(one, TooMany) for one in got) == len(asked) - most


@pytest.mark.parametrize("door", ["/reports/statement/", "/people/data/", "/reports/packs/", "/reports/"])
def test_cap_is_told_at_each_door(door: str) -> None:
    person = make_person("accounting")
    assert person is not None
    for day in range(1, project.REPORTS_OPEN_MOST + 1):
        services.ask_for(person, kind=Kind.SALES, format=Format.CSV, start=f"2026-01-{day:02}", end="2026-01-31")
    fields = {"kind": Kind.STOCK, "format": Format.PDF, "start": "2026-01-01", "end": "2026-01-31"}
    fields["month"] = str(months_over()[0])

    page = client_of(person)().post(door, fields, follow=True)

    assert "You can have at most" in page.content.decode()
    assert Report.objects.count() == project.REPORTS_OPEN_MOST
