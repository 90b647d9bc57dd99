"""What a person reaches from the dashboard, a link at a time, no page further than two from it."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import PeriodicTask

from accounts.models import User
from durable.schedules import declared
from orders.models import InventorySync
from tests.factories import make_import, make_pack, make_report, place_order

pytestmark = pytest.mark.django_db

STEPS = 2


def make_rows(person: User) -> None:
    """Make one of each row that has a page of its own."""
    place_order(person)
    make_import("x")
    make_report(person)
    make_pack(person)
    InventorySync.objects.open_one()


def links_on(client: Client, page: str) -> set[str]:
    """Return the paths that a page of the shop links to, after making sure that it opens."""
    answer = client.get(page)
    # Flower is a program of its own, on another port, and the admin's way to a password leads to the shop's.
    leads_away = page in (reverse("flower"), reverse("admin:password_change"))
    asks_again = answer.headers.get("Location", "").startswith(reverse("account_reauthenticate"))
    assert answer.status_code == 200 or leads_away or asks_again, page
    found = re.findall(r'<a [^>]*href="([^"]+)"', answer.content.decode()) if "html" in answer["Content-Type"] else []
    return {urlsplit(link).path for link in found if link.startswith("/")}


def walk(client: Client, start: str) -> set[str]:
    """Open all pages up to `STEPS` links away."""
    seen, edge = set(), {start}
    for _ in range(STEPS):
        seen |= edge
        edge = {link for page in edge for link in links_on(client, page)} - seen
    for page in edge:
        links_on(client, page)
    return seen | edge


def test_customer_s_dashboard_leads_nowhere_that_is_closed(login: Callable[[User], Client], customer: User) -> None:
    place_order(customer)

    assert "/admin/" not in walk(login(customer), reverse("dashboard"))


def test_admin_lists_each_schedule(login: Callable[[User], Client], staff: User) -> None:
    call_command("sync_schedules")

    page = login(staff).get(reverse("admin:django_celery_beat_periodictask_changelist")).content.decode()

    tasks = dict(PeriodicTask.objects.values_list("name", "task"))
    assert tasks == {name: schedule.task for name, schedule in declared().items()}
    assert [name for name in declared() if f">{name}</a>" not in page] == []
    assert [task for task in tasks.values() if f">{task}</td>" not in page] == []
