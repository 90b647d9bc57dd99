"""A new user finds each task from the dashboard: a link at a time, no page further than two from it."""

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
from myproject.celery import app
from orders.models import InventorySync
from tests.factories import make_import, make_pack, make_report, place_order

pytestmark = pytest.mark.django_db

STEPS = 2


def places(person: User) -> dict[str, list[str]]:
    """Return the pages where a person sees what tasks have done, each with those tasks."""
    order, product_import, report = place_order(person), make_import("x"), make_report(person)
    pack = make_pack(person)
    run = InventorySync.objects.open_one()
    scheduled = [schedule.task for schedule in declared().values()]
    return {
        order.get_absolute_url(): [
            *("orders.tasks.process_order", "orders.tasks.send_order_confirmation", "orders.tasks.refund_order"),
        ],
        product_import.get_absolute_url(): ["orders.tasks.import_products", "orders.tasks.handle_import_failure"],
        run.get_absolute_url(): ["orders.tasks.sync_inventory"],
        reverse("admin:orders_product_changelist"): ["orders.tasks.make_thumbnails"],
        reverse("admin:orders_digest_changelist"): [
            *("orders.tasks.send_weekly_digest", "orders.tasks.send_digest_emails"),
        ],
        reverse("admin:accounts_user_changelist"): ["accounts.tasks.send_welcome_email"],
        reverse("admin:accounts_accountmail_changelist"): ["accounts.tasks.send_account_email"],
        reverse("admin:accounts_notification_changelist"): ["accounts.tasks.send_notification_email"],
        reverse("admin:accounts_crmcontact_changelist"): ["accounts.tasks.sync_user_to_crm"],
        report.get_absolute_url(): ["reports.tasks.generate_report"],
        pack.get_absolute_url(): ["reports.tasks.generate_pack"],
        reverse("reports:schedules"): ["reports.tasks.plan_scheduled_report"],
        reverse("delete-account"): ["reports.tasks.erase_account"],
        reverse("admin:myproject_alert_changelist"): ["myproject.tasks.send_alert"],
        reverse("try_it"): [f"myproject.tasks.{name}" for name in ("add", "multiply", "wait", "fail", "fail_twice")],
        reverse("admin:django_celery_beat_periodictask_changelist"): scheduled,
    }


def links_on(client: Client, page: str) -> set[str]:
    """Return the paths that a page of the shop links to, after making sure that it opens."""
    answer = client.get(page)
    # Flower is a program of its own, on another port.
    assert answer.status_code == 200 or page == reverse("flower"), page
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


def test_each_task_is_found_from_the_dashboard(login: Callable[[User], Client], staff: User) -> None:
    call_command("sync_schedules")
    where = places(staff)

    pages = walk(login(staff), reverse("dashboard"))

    assert set(where) - pages == set()
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    # By hand only: `celery call`.
    assert ours - {task for tasks in where.values() for task in tasks} == {"myproject.celery.debug_task"}


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
