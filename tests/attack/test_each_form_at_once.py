"""Each form of each page, sent four times at the same moment to the real server, does what it does when sent once.

Two equal shops are walked in the same order: one is sent each form once, the other four times. After each form the
same numbers of rows were written in each table of both, both hold as many rows, with the same sums of their numbers,
and as many messages were sent to workers. The forms are those that the pages show and the actions of the admin; one
that changes nothing in this walk has to be named with a reason.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
import requests
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from accounts.models import AccountMail, Notification, User
from myproject.alerting.models import DeadLetter
from orders.models import Kind, Order, OrderEvent, Payment, Product, Status
from tests.attack.addresses import addresses, make_person
from tests.attack.forms import Form, forms_of
from tests.attack.test_access import known
from tests.attack.written import changed
from tests.broker import Broker
from tests.factories import PASSWORD, make_letter, place_order, put
from tests.production import HOST, Web

pytest_plugins = ["tests.broker"]
pytestmark = [pytest.mark.attack, pytest.mark.django_db(transaction=True), pytest.mark.timeout(1800)]

TIMES = 4
PROXY = {"Host": HOST, "X-Forwarded-Proto": "https", "Referer": f"https://{HOST}/"}
# Whatever ends the session, or the account, comes last.
LAST = ("/accounts/logout/", "/people/delete/")
# What an address answers, by the table of who comes where, that takes a POST of this person's.
TAKEN = {"200", "302", "422"}
# What is done as often as it is sent, and so is sent once.
MEANT = {
    "basket/add/<slug:slug>/": "Each press adds as many again, and the page says how many there are.",
    "try-it/": "Each press queues one task more, and the page lists each.",
    "people/tokens/ ": "The answer that makes a token is the only one that can show it: nothing keeps the secret.",
}
# What changes no row here and queues nothing, by how its name begins.
IDLE = {
    "theme/": "A cookie of the browser's.",
    "admin/logout/": "It ends the session.",
    "accounts/logout/": "It ends the session.",
    "flower/": "A redirect.",
    "api/v1/": "Pages that describe the API.",
    "lab/": "Production has no lab.",
    "accounts/login/": "No account has the words as its password; a person who has signed in is led away.",
    "accounts/signup/ ": "A person who has signed in is led away.",
    "accounts/password/set/": "A person with a password is led to the page that changes it.",
    "accounts/second-factor/": "Without an app there is none to use; setting one up is in test_at_once.py.",
    "admin/accounts/user/ action=delete_selected": "A person with orders is protected; delete_accounts is for them.",
    "admin/django_celery_beat/crontabschedule/ action=delete_selected": "Protected by a report's schedule.",
    "admin/django_celery_beat/periodictask/ action=delete_selected": "Protected by a report's schedule.",
}
NOW = {"expires_0": "", "expires_1": "", "start_time_0": "", "start_time_1": "", "solar": "", "clocked": ""}
# What each form wants in fields that no common word fits, by how its address begins.
WORDS: dict[str, dict[str, str]] = {
    "/admin/django_celery_beat/clockedschedule/": {"clocked_time_0": "2027-01-01", "clocked_time_1": "08:00:00"},
    "/admin/django_celery_beat/solarschedule/": {"latitude": "48.1", "longitude": "11.6"},
    "/admin/django_celery_beat/intervalschedule/": {"every": "7"},
    "/admin/django_celery_beat/periodictask/": NOW
    | {
        "task": "myproject.tasks.heartbeat",
        "regtask": "",
        "crontab": "",
        "args": "[]",
        "kwargs": "{}",
        "headers": "{}",
    },
    "/reports/schedules/": {"at": "08:00", "day": "1"},
}


class Browser:
    """One person at the real server, who has just given the password."""

    def __init__(self, web: Web, person: User | None) -> None:
        self.url, client = f"http://127.0.0.1:{web.port}", Client()
        if person:
            client.force_login(person)
            client.post("/accounts/reauthenticate/", {"password": PASSWORD})
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
        self.cookies = {"__Host-sessionid": session} if person else {}

    def get(self, path: str) -> requests.Response:
        answer = requests.get(self.url + path, headers=PROXY | self.cookie(), allow_redirects=False, timeout=60)
        self.cookies |= answer.cookies.get_dict()
        return answer

    def cookie(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def send(self, form: Form) -> requests.Response:
        headers, url = PROXY | self.cookie(), self.url + form.path
        files = form.upload()
        return requests.post(url, data=form.fields, files=files, headers=headers, allow_redirects=False, timeout=60)

    def send_at_once(self, form: Form, times: int) -> list[requests.Response]:
        gate = threading.Barrier(times)

        def one(_: int) -> requests.Response:
            gate.wait()
            return self.send(form)

        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(one, range(times)))


def world(role: str) -> tuple[User | None, dict[str, bool]]:
    """Make rows for each address, and what the person has of their own; say which addresses take what has no form."""
    call_command("flush", verbosity=0, interactive=False)
    person, table = make_person(role), known()
    paths = {}
    for route, path in addresses(person).items():
        said = {method: table.get((route, method), {}).get(role) for method in ("GET", "POST")}
        if ("200" in said.values() or said["POST"] in TAKEN) and not is_of_customers(route, role, table):
            paths[path] = said["POST"] in TAKEN
    User.objects.update(wants_digest=True)
    if person:
        paths |= {f"/orders/{order.reference}/": False for order in own_orders(person)}
    return person, paths


def is_of_customers(route: str, role: str, table: Any) -> bool:
    """Whether this is tried as a customer already."""
    if role in ("visitor", "customer"):
        return False
    said = {method: table.get((route, method), {}).get("customer") for method in ("GET", "POST")}
    return said["GET"] == "200" or said["POST"] in TAKEN


def own_orders(person: User) -> list[Order]:
    own = [place_order(customer=person), put(place_order(customer=person), Status.PAYMENT_FAILED)]
    Payment.objects.filter(order=own[1]).update(status="declined")
    return own


class Office:
    """What staff's forms are about, as it is before each of them."""

    def __init__(self) -> None:
        self.rejected, self.failed, self.completed, self.open = (place_order() for _ in range(4))

    def arrange(self) -> None:
        put(self.rejected, Status.REJECTED)
        put(self.failed, Status.PAYMENT_FAILED)
        put(self.completed, Status.COMPLETED)
        put(self.open, Status.PENDING)
        Payment.objects.filter(order=self.failed).update(status="declined")
        paid = {"status": "succeeded", "provider_id": "pi_1", "refund_wanted_at": None, "refund_due_at": None}
        Payment.objects.filter(order=self.completed).update(**paid)
        Order.objects.filter(pk=self.open.pk).update(flagged_at=timezone.now(), flag_reason="Of the test.")
        OrderEvent.objects.filter(kind=Kind.REQUEUED).delete()
        DeadLetter.objects.all().delete()
        make_letter()
        Product.objects.update(is_active=True)
        for model in (User, Order, AccountMail, Notification):
            model._base_manager.update(mail_due_at=None, mail_sent_at=None, mail_error="Refused.")

    def pages(self) -> dict[str, bool]:
        orders = (self.rejected, self.failed, self.completed, self.open)
        refund = {f"/orders/{self.completed.reference}/refund/": False}
        return {f"/orders/{order.reference}/": False for order in orders} | refund


class Walk:
    """What became of each form: how the rows changed, what was queued, and what was answered."""

    def __init__(self, web: Web, broker: Broker, role: str, times: int) -> None:
        self.web, self.broker, self.times = web, broker, times
        self.person, self.paths = world(role)
        self.office = Office() if self.person and self.person.is_staff else None
        self.paths |= self.office.pages() if self.office else {}
        self.browser: Browser | None = None
        self.changes: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, list[int]] = {}
        self.routes: set[str] = set()
        # What deletes is sent when everything else was.
        self.later: set[str] = set()

    def go(self) -> Self:
        for self.is_end in (False, True):
            for path in sorted(self.paths, key=self.place_of):
                if path in self.later or not self.is_end:
                    self.visit(path)
        return self

    def place_of(self, path: str) -> tuple[Any, ...]:
        """Return when its turn is: references and ids differ in the two shops; accounts are deleted after the rest."""
        ends = path.startswith(LAST) or (self.is_end and path.startswith("/admin/accounts/"))
        return ends, self.paths[path], Form(path, ()).route

    def visit(self, path: str) -> None:
        cache.clear()
        while form := self.next_form(path):
            self.send(form)

    def next_form(self, path: str) -> Form | None:
        """Return a form that was not sent yet, of the page as it is now."""
        if self.office:
            self.office.arrange()
        offered = self.offered(path)
        return next((f for name, f in offered.items() if name not in self.answers and self.is_time(path, name)), None)

    def get(self, path: str) -> str:
        """Return the page for this person, who signs in where the session has ended."""
        answer = self.browser.get(path) if self.browser else None
        if answer is None or "/accounts/" in answer.headers.get("Location", ""):
            if self.person:
                # With the password as it is now, by which a session is valid.
                self.person.refresh_from_db()
            self.browser = Browser(self.web, self.person)
            answer = self.browser.get(path)
        return answer.text

    def is_time(self, path: str, name: str) -> bool:
        """Whether the form may delete rows, or end the session, here; each page offers to sign out."""
        is_deletion = "delete" in name
        self.later |= {path} if is_deletion else set()
        if is_deletion != self.is_end:
            return False
        return path.startswith(LAST) or not f"/{name}".startswith(LAST)

    def offered(self, path: str) -> dict[str, Form]:
        """Return the forms of the page as it is now, with tokens of their own."""
        found = [*forms_of(path, self.get(path), words_for(path))]
        bare = Form(path, ())
        if not found and self.paths[path] and bare.route not in self.routes:
            self.get("/")
            assert self.browser
            found = [bare._replace(fields=(("csrfmiddlewaretoken", self.browser.cookies["__Host-csrftoken"]),))]
        return {form.name: form for form in reversed(found)}

    def send(self, form: Form) -> None:
        assert self.browser
        cache.clear()
        name = form.name
        self.routes.add(form.route)
        times = 1 if name.startswith(tuple(MEANT)) else self.times
        with changed(self.broker) as self.changes[name]:
            answers = self.browser.send_at_once(form, times)
            asked = [each for each in forms_of(form.path, answers[0].text, {}) if each.is_confirmation]
            answers += self.browser.send_at_once(asked[0], times) if asked and not form.is_confirmation else []
        self.answers[name] = [answer.status_code for answer in answers]


def words_for(path: str) -> dict[str, str]:
    return next((words for start, words in WORDS.items() if path.startswith(start)), {})


@pytest.mark.parametrize("role", ["customer", "visitor", "administrator"])
def test_form_sent_at_once_does_what_it_does_once(role: str, tmp_path: Path, broker: Broker) -> None:
    with Web(tmp_path, SECRET_KEY=settings.SECRET_KEY, CELERY_BROKER_URL=broker.url) as web:
        once, often = Walk(web, broker, role, 1).go(), Walk(web, broker, role, TIMES).go()

    pairs = {name: (once.changes.get(name), done) for name, done in often.changes.items()}
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    assert {name: codes for name, codes in often.answers.items() if max(codes) >= 500} == {}
    assert different == {}
    assert set(once.changes) == set(often.changes)
    idle = {name for name, done in once.changes.items() if not any(done.values())}
    assert {name for name in idle if not name.startswith(tuple(IDLE))} == set()
