"""The CRM is told by the real processes, whatever breaks meanwhile."""

import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.conf import settings
from django.utils import timezone

from accounts import services, tasks
from accounts.models import CrmContact, CrmStatus, User
from tests.factories import PASSWORD, make_user
from tests.shop import Shop, strike, wait_for


@pytest.fixture(autouse=True)
def calm(shop: Shop) -> Iterator[None]:
    shop.sandbox("/controls", {"reset": "all"})
    yield
    shop.sandbox("/controls", {"reset": "all"})


@pytest.fixture
def person(shop: Shop) -> User:
    """A person of whom the CRM is to be told, with no message queued yet."""
    return make_user(name="Alice")


def tell(person: User) -> None:
    services.want_crm_sync(person)
    tasks.sync_user_to_crm.delay(user_id=person.pk)


def known(shop: Shop, person: User) -> dict[str, Any]:
    found: list[dict[str, Any]] = shop.sandbox(f"/crm.json?external_id={person.pk}")["contacts"]
    return found[0] if found else {}


def synced(person: User) -> bool:
    return CrmContact.objects.filter(pk=person.pk, status=CrmStatus.SYNCED).exists()


def struck(shop: Shop, fault: str) -> int:
    return int(shop.sandbox("/controls.json")["faults"][fault]["struck"])


def sign_up(email: str) -> None:
    browser = requests.Session()
    page = browser.get(f"{settings.SITE_URL}/accounts/signup/", timeout=20)
    token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[0]
    form = {"email": email, "name": "Alice", "password1": PASSWORD, "password2": PASSWORD}
    answer = browser.post(page.url, form | {"csrfmiddlewaretoken": token}, timeout=20)
    assert answer.url.endswith("/dashboard/")


@pytest.mark.proves("accounts.tasks.sync_user_to_crm", "worker")
def test_registration_reaches_the_crm(shop: Shop) -> None:
    sign_up("alice@example.com")

    alice = User.objects.get(email="alice@example.com")
    wait_for(lambda: synced(alice), "the CRM to be told")
    told = known(shop, alice)
    assert (told["email"], told["name"], told["written"]) == ("alice@example.com", "Alice", 1)


def test_person_is_told_when_the_crm_comes_back(shop: Shop, person: User) -> None:
    shop.sandbox("/controls", {"fault": "crm_error", "count": 2})

    tell(person)

    wait_for(lambda: synced(person), "the CRM to be told")
    assert (struck(shop, "crm_error"), known(shop, person)["written"]) == (2, 1)


@pytest.mark.proves("accounts.tasks.check_unsynced_contacts", "worker")
def test_person_is_told_when_the_message_was_never_sent(shop: Shop, person: User) -> None:
    services.want_crm_sync(person)

    wait_for(lambda: synced(person), "the sweep")
    assert known(shop, person)["written"] == 1


def test_person_is_told_once_when_the_child_is_killed_in_the_middle(shop: Shop, person: User) -> None:
    shop.sandbox("/controls", {"fault": "crm_slow", "count": 1, "seconds": 3})
    tell(person)
    wait_for(lambda: struck(shop, "crm_slow"), "the call")

    strike(CrmContact.objects.get(pk=person.pk).claimed_by, signal.SIGKILL)

    wait_for(lambda: synced(person), "the CRM to be told")
    wait_for(lambda: known(shop, person)["asked"] == 2, "both calls to arrive")
    assert known(shop, person)["written"] == 1


def test_person_is_told_once_when_the_whole_worker_is_killed_in_the_middle(shop: Shop, person: User) -> None:
    shop.sandbox("/controls", {"fault": "crm_slow", "count": 1, "seconds": 2})
    tell(person)
    wait_for(lambda: struck(shop, "crm_slow"), "the call")

    shop.kill("worker")
    # As if the lease of the dead one had run out.
    CrmContact.objects.filter(pk=person.pk).update(due_at=timezone.now())
    shop.heal()

    wait_for(lambda: synced(person), "the CRM to be told")
    assert known(shop, person)["written"] == 1


def test_person_who_is_deleted_is_forgotten_by_the_crm(shop: Shop, person: User) -> None:
    tell(person)
    wait_for(lambda: synced(person), "the CRM to be told")

    services.want_crm_erasure(person)
    person_as_it_was = User(pk=person.pk)
    person.delete()

    wait_for(lambda: known(shop, person_as_it_was)["deleted"], "the CRM to forget")
    wait_for(lambda: synced(person_as_it_was), "the record of it")


@pytest.mark.proves("accounts.tasks.catch_up_with_crm", "worker")
def test_catch_up_reaches_the_crm(shop: Shop, person: User) -> None:
    tasks.catch_up_with_crm.delay()

    wait_for(lambda: synced(person), "the CRM to be told")
    assert known(shop, person)["name"] == "Alice"
