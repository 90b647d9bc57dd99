"""What the CRM is told, against a real sandbox: once, in order, and never lost."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from allauth.account.models import EmailAddress, EmailConfirmationHMAC
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts import crm, services, tasks
from accounts.models import CrmContact, CrmStatus, User
from accounts.schedules import SCHEDULES
from durable.errors import TemporaryError
from myproject import http
from tests.accounts.test_accounts import sign_up
from tests.broker import Broker
from tests.factories import claim, make_contact, make_user
from tests.sandbox.conftest import Sandbox

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db
TASK = "accounts.tasks.sync_user_to_crm"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def sandbox(process: Sandbox, settings: Settings) -> Sandbox:
    process.ask("/controls", method="DELETE")
    settings.CRM_URL = f"{process.url}/crm"
    return process


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


def sync(person: User, task_id: str = "task-1") -> str:
    """Run the task with all its retries at once; return its state."""
    state: str = tasks.sync_user_to_crm.apply(kwargs={"user_id": person.pk}, task_id=task_id).state
    return state


def known(sandbox: Sandbox, person: User) -> dict[str, Any]:
    """Return what the CRM knows of the person; empty where it was never told."""
    found: list[dict[str, Any]] = sandbox.ask(f"/crm.json?external_id={person.pk}")["contacts"]
    return found[0] if found else {}


def struck(sandbox: Sandbox, fault: str) -> int:
    return int(sandbox.ask("/controls.json")["faults"][fault]["struck"])


def rename(person: User, name: str) -> None:
    person.name = name
    person.save()
    services.want_crm_sync(person)


# --- Told ---


def test_sync_user_to_crm_tells_name_and_address(sandbox: Sandbox) -> None:
    contact = make_contact(make_user(email="ünal@example.com", name="Ünal Ö'Hara"))
    assert contact.user is not None

    sync(contact.user)

    contact.refresh_from_db()
    told = known(sandbox, contact.user)
    assert (told["email"], told["name"], told["written"]) == ("ünal@example.com", "Ünal Ö'Hara", 1)
    assert (contact.status, contact.due_at, contact.synced_at is None) == (CrmStatus.SYNCED, None, False)


@pytest.mark.proves("accounts.tasks.sync_user_to_crm", "twice", page="admin:accounts_crmcontact_changelist")
def test_sync_user_to_crm_twice_is_once(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)

    for number in range(2):
        sync(customer, f"task-{number}")

    assert (known(sandbox, customer)["written"], known(sandbox, customer)["asked"]) == (1, 1)


def test_sync_user_to_crm_leaves_a_contact_to_the_task_that_holds_it(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    claim(CrmContact.objects.get(), "another")

    sync(customer)

    assert known(sandbox, customer) == {}


def test_changed_person_is_told_again(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    sync(customer)

    rename(customer, "Alice B.")
    sync(customer, "task-2")

    assert (known(sandbox, customer)["name"], known(sandbox, customer)["written"]) == ("Alice B.", 2)


def test_change_while_the_crm_is_told_is_not_lost(
    sandbox: Sandbox, customer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_contact(customer)
    put_contact = crm.put_contact

    def put_and_meet_a_change(user: User, version: Any) -> None:
        put_contact(user, version)
        rename(customer, "Changed meanwhile")

    monkeypatch.setattr(crm, "put_contact", put_and_meet_a_change)
    sync(customer)
    monkeypatch.undo()
    due = list(CrmContact.objects.due())
    sync(customer, "task-2")

    assert [contact.pk for contact in due] == [customer.pk]
    assert known(sandbox, customer)["name"] == "Changed meanwhile"
    assert CrmContact.objects.get().status == CrmStatus.SYNCED


def test_older_version_that_arrives_late_changes_neither_crm_nor_row(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    slow: CrmContact = claim(CrmContact.objects.get(), "slow")
    assert slow.user is not None
    rename(customer, "New")
    sync(customer)

    with pytest.raises(http.Refused, match="409"):
        crm.put_contact(slow.user, slow.wanted_at)
    slow.mark_refused("409")
    slow.mark_synced()

    contact = CrmContact.objects.get()
    assert known(sandbox, customer)["name"] == "New"
    assert (contact.status, contact.error, contact.wanted_at > slow.wanted_at) == (CrmStatus.SYNCED, "", True)


def test_version_moves_on_when_the_clock_goes_back(customer: User) -> None:
    ahead = timezone.now() + timedelta(hours=1)
    make_contact(customer, wanted_at=ahead)

    services.want_crm_sync(customer)

    assert CrmContact.objects.get().wanted_at == ahead + timedelta(microseconds=1)


# --- Not told, or not known whether ---


def test_contact_is_written_once_when_the_answer_was_lost(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    sandbox.switch_on("crm_drop_answer", count=1)

    sync(customer)

    assert (known(sandbox, customer)["written"], known(sandbox, customer)["asked"]) == (1, 2)
    assert CrmContact.objects.get().status == CrmStatus.SYNCED


def test_busy_crm_is_left_alone_as_long_as_it_asks(
    sandbox: Sandbox, customer: User, caplog: pytest.LogCaptureFixture
) -> None:
    make_contact(customer)
    sandbox.switch_on("crm_busy", count=1, seconds=77)

    sync(customer)

    assert "Retry in 77s: " in caplog.text
    assert known(sandbox, customer)["written"] == 1


def test_sweep_leaves_a_busy_crm_alone_as_long_as_it_asks(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    sandbox.switch_on("crm_busy", count=1, seconds=77)
    before = timezone.now()

    with pytest.raises(TemporaryError):
        services.sync_contact(customer.pk)

    due_at = CrmContact.objects.get().due_at
    assert due_at is not None
    assert due_at >= before + timedelta(seconds=77) + CrmContact.lease.lasts()
    assert "429" in CrmContact.objects.get().error


def test_refused_contact_ends_with_its_reason_at_once(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    sandbox.switch_on("crm_refuse", rate=1)

    state = sync(customer)

    contact = CrmContact.objects.get()
    assert (state, struck(sandbox, "crm_refuse")) == ("SUCCESS", 1)
    assert (contact.status, contact.due_at) == (CrmStatus.REFUSED, None)
    assert "422" in contact.error
    assert "told to refuse this contact" in contact.error


def test_contact_fails_with_its_reason_after_five_retries(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    sandbox.switch_on("crm_error", rate=1)

    state = sync(customer)

    contact = CrmContact.objects.get()
    assert (state, struck(sandbox, "crm_error"), contact.attempts) == ("FAILURE", 6, 6)
    assert (contact.status, contact.due_at, "500" in contact.error) == (CrmStatus.FAILED, None, True)


def test_wrong_token_waits_for_the_night_and_is_not_retried(
    sandbox: Sandbox, customer: User, settings: Settings
) -> None:
    make_contact(customer)
    settings.CRM_TOKEN = "wrong"

    state = sync(customer)

    contact = CrmContact.objects.get()
    assert (state, contact.attempts, contact.status) == ("SUCCESS", 1, CrmStatus.FAILED)
    assert "401" in contact.error


def test_crm_that_is_switched_off_is_told_nothing_and_the_row_waits(
    client: Client, broker: Broker, settings: Settings
) -> None:
    settings.CRM_URL = ""

    sign_up(client)
    tasks.check_unsynced_contacts()
    tasks.catch_up_with_crm()
    sync(User.objects.get())

    assert [message for message in broker.messages() if message[1] == TASK] == []
    assert (CrmContact.objects.get().attempts, CrmContact.objects.due().count()) == (0, 1)


def test_limits_of_row_and_task_agree() -> None:
    task = tasks.sync_user_to_crm

    assert task.max_retries + 1 == CrmContact.lease.max_attempts
    assert timedelta(seconds=task.retry_backoff_max) == services.MAX_PAUSE
    assert 2 * crm.TIMEOUT_SECONDS < task.soft_time_limit < task.time_limit < CrmContact.lease.lasts().total_seconds()


# --- Personal data ---


class Parrot(BaseHTTPRequestHandler):
    """A CRM that fails and repeats what it was sent."""

    status = 500

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Keep the tests' output clean."""


@pytest.mark.parametrize("status", [500, 422, 401])
def test_log_has_no_personal_data_whatever_the_crm_answers(
    status: int, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Parrot, "status", status)
    contact = make_contact(make_user(email="alice@example.com", name="Wonderland"))
    assert contact.user is not None

    with HTTPServer(("127.0.0.1", 0), Parrot) as parrot:
        Thread(target=parrot.serve_forever, args=[0.01], daemon=True).start()
        settings.CRM_URL = f"http://127.0.0.1:{parrot.server_port}/crm"
        sync(contact.user)
        parrot.shutdown()

    assert f"{contact.pk}" in caplog.text
    assert ("alice@" in caplog.text, "Wonderland" in caplog.text) == (False, False)


# --- Forgotten ---


def test_person_is_forgotten_once(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    sync(customer)

    services.want_crm_erasure(customer)
    for number in range(2):
        sync(customer, f"erase-{number}")

    told = known(sandbox, customer)
    assert (told["deleted"], told["email"], told["name"], told["asked"]) == (1, "", "", 2)
    assert CrmContact.objects.get().status == CrmStatus.SYNCED


def test_person_whom_the_crm_never_knew_is_forgotten_all_the_same(sandbox: Sandbox, customer: User) -> None:
    services.want_crm_erasure(customer)

    state = sync(customer)

    assert (state, CrmContact.objects.get().status) == ("SUCCESS", CrmStatus.SYNCED)


def test_forgotten_person_is_not_told_again(sandbox: Sandbox, customer: User) -> None:
    services.want_crm_erasure(customer)
    sync(customer)

    rename(customer, "Somebody")
    sync(customer, "task-2")

    assert known(sandbox, customer)["deleted"] == 1


# --- Sweeps ---


def test_check_unsynced_contacts_queues_what_is_due(broker: Broker) -> None:
    due = make_contact()
    make_contact(due_at=timezone.now() + timedelta(minutes=1))
    make_contact(attempts=CrmContact.lease.max_attempts)
    for status in (CrmStatus.SYNCED, CrmStatus.FAILED, CrmStatus.REFUSED):
        make_contact(status=status)

    tasks.check_unsynced_contacts()

    assert broker.messages() == [("default", TASK, {"user_id": due.pk})]


def test_messages_of_check_unsynced_contacts_are_dropped_before_the_next_run(broker: Broker) -> None:
    for _ in range(2):
        make_contact()

    tasks.check_unsynced_contacts()

    schedule: Any = SCHEDULES["Check unsynced contacts"]
    expiries = broker.expiries()
    assert (len(expiries), min(expiries) > 0) == (2, True)
    assert max(expiries) < schedule.when.total_seconds()


@pytest.mark.proves("accounts.tasks.check_unsynced_contacts", "twice")
def test_check_unsynced_contacts_twice_tells_each_once(sandbox: Sandbox, broker: Broker, customer: User) -> None:
    make_contact(customer)
    for _ in range(2):
        tasks.check_unsynced_contacts()

    for number, (_, _, kwargs) in enumerate(broker.messages()):
        tasks.sync_user_to_crm.apply(kwargs=kwargs, task_id=f"task-{number}")

    assert known(sandbox, customer)["asked"] == 1


def test_catch_up_with_crm_wants_what_is_behind() -> None:
    newcomer, gone = make_user(), make_user()
    make_user(is_active=False)
    behind = [
        make_contact(status=CrmStatus.FAILED, attempts=6, error="500"),
        make_contact(attempts=CrmContact.lease.max_attempts),
        make_contact(gone, status=CrmStatus.SYNCED),
    ]
    make_contact(status=CrmStatus.SYNCED)
    make_contact(status=CrmStatus.REFUSED)
    gone_pk = gone.pk
    gone.delete()

    tasks.catch_up_with_crm()

    assert {contact.pk for contact in CrmContact.objects.due()} == {newcomer.pk, *(row.pk for row in behind)}
    assert [contact.pk for contact in CrmContact.objects.filter(is_erased=True)] == [gone_pk]


@pytest.mark.proves("accounts.tasks.catch_up_with_crm", "twice")
def test_catch_up_with_crm_twice_is_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "CHUNK", 2)
    for _ in range(5):
        make_user()
        make_contact(status=CrmStatus.FAILED)

    counts = [services.catch_up_with_crm() for _ in range(2)]

    assert (counts, CrmContact.objects.due().count()) == ([10, 0], 10)


def test_failed_contact_is_told_after_the_night(sandbox: Sandbox, customer: User) -> None:
    make_contact(customer)
    sandbox.switch_on("crm_error", rate=1)
    sync(customer)
    sandbox.ask("/controls", method="DELETE")

    tasks.catch_up_with_crm()
    sync(customer, "task-2")

    contact = CrmContact.objects.get()
    assert (contact.status, contact.error, known(sandbox, customer)["written"]) == (CrmStatus.SYNCED, "", 1)


# --- The web ---


@pytest.mark.django_db(transaction=True)
def test_changed_address_is_told(login: Callable[[User], Client], customer: User, broker: Broker) -> None:
    EmailAddress.objects.create(user=customer, email=customer.email, primary=True, verified=True)
    new = EmailAddress.objects.create(user=customer, email="new@example.com")

    login(customer).post(f"/accounts/confirm-email/{EmailConfirmationHMAC(new).key}/")

    customer.refresh_from_db()
    assert customer.email == "new@example.com"
    assert ("default", TASK, {"user_id": customer.pk}) in broker.messages()
    assert CrmContact.objects.due().count() == 1


def user_form(person: User, **fields: Any) -> dict[str, Any]:
    return {"email": person.email, "name": person.name, "is_active": "on"} | fields


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fields", "count"), [({"name": "New"}, 1), ({"email": "new@example.com"}, 1), ({"is_staff": "on"}, 0), ({}, 0)]
)
def test_admin_tells_the_crm_when_name_or_address_change(
    fields: dict[str, str], count: int, office: Client, customer: User, broker: Broker
) -> None:
    answer = office.post(reverse("admin:accounts_user_change", args=[customer.pk]), user_form(customer, **fields))

    assert answer.status_code == 302
    told = [message for message in broker.messages() if message[1] == TASK]
    assert told == [("default", TASK, {"user_id": customer.pk})] * count
    assert CrmContact.objects.due().count() == count


@pytest.mark.django_db(transaction=True)
def test_admin_tells_the_crm_of_a_person_who_was_added(office: Client, broker: Broker) -> None:
    passwords = {"usable_password": "true", "password1": "good-one-of-mine", "password2": "good-one-of-mine"}

    office.post(reverse("admin:accounts_user_add"), {"email": "new@example.com", "name": "New"} | passwords)

    added = User.objects.get(email="new@example.com")
    assert ("default", TASK, {"user_id": added.pk}) in broker.messages()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("page", ["delete", "changelist"])
def test_person_deleted_in_the_admin_is_forgotten(
    page: str, office: Client, customer: User, broker: Broker, sandbox: Sandbox
) -> None:
    make_contact(customer)
    sync(customer)
    path = reverse(f"admin:accounts_user_{page}", args=[customer.pk] if page == "delete" else [])

    chosen = {"action": "delete_selected", "_selected_action": [customer.pk]}
    asked = office.get(path) if page == "delete" else office.post(path, chosen)
    office.post(path, chosen | {"post": "yes", "seen": asked.context["seen"]})

    assert User.objects.filter(pk=customer.pk).exists() is False
    ((queue, name, kwargs),) = broker.messages()
    tasks.sync_user_to_crm.apply(kwargs=kwargs, task_id="task-2")
    assert (queue, name, kwargs) == ("default", TASK, {"user_id": customer.pk})
    assert known(sandbox, customer)["deleted"] == 1
    contacts = reverse("admin:accounts_crmcontact_changelist")
    assert str(customer.pk) in office.get(contacts).content.decode()


@pytest.mark.django_db(transaction=True)
def test_staff_see_the_reason_and_try_again(office: Client, broker: Broker) -> None:
    refused = make_contact(status=CrmStatus.REFUSED, attempts=1, error="422 No such address")
    failed = make_contact(status=CrmStatus.FAILED, attempts=6, error="500")
    make_contact(make_user(name="Synced Sue"), status=CrmStatus.SYNCED, attempts=2)
    make_contact(make_user(name="Untold Una"), due_at=timezone.now() + timedelta(minutes=1))
    path = reverse("admin:accounts_crmcontact_changelist")

    page = office.get(f"{path}?unsynced=yes").content.decode()
    answer = office.post(path, {"action": "try_again", "_selected_action": [refused.pk, failed.pk]})

    assert [word in page for word in ("422 No such address", "Synced Sue", "Untold Una")] == [True, False, False]
    assert {contact.pk for contact in CrmContact.objects.due()} == {refused.pk, failed.pk}
    assert sorted(kwargs["user_id"] for _, _, kwargs in broker.messages()) == [refused.pk, failed.pk]
    assert [str(message) for message in get_messages(answer.wsgi_request)] == ["2 contacts will be synchronised again."]


def test_dashboard_leads_staff_to_what_could_not_be_synchronised(office: Client) -> None:
    path = reverse("admin:accounts_crmcontact_changelist")

    assert f'href="{path}?unsynced=yes"' in office.get("/dashboard/").content.decode()
