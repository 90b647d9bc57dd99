"""No page breaks the content security policy, read in Chromium page by page."""

from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin import site
from django.core.management import call_command
from django.urls import reverse
from playwright.sync_api import Page

from tests.factories import place_order
from tests.test_headers import LOGIN

pytestmark = pytest.mark.operations


def paths() -> list[str]:
    """Return all pages of the admin that need no id, and all of django-allauth's for who is signed in."""
    models = [f"admin:{model._meta.app_label}_{model._meta.model_name}" for model in site._registry]
    lists = [reverse(f"{name}_changelist") for name in models]
    account = ["account_email", "account_change_password", "account_reauthenticate", "account_logout"]
    return ["/admin/", *lists, *[reverse(name) for name in [*account, "mfa_index", "mfa_activate_totp"]]]


# As a script error or a blocked resource, a violation of the policy fails any test that uses `page`.
def test_no_page_violates_the_policy(page: Page, shop: Any) -> None:
    call_command("seed_demo", empty=True)
    place_order()
    page.goto(LOGIN)
    page.locator("[name=login]").fill("staff@example.com")
    page.locator("[name=password]").fill("lantern-loom")
    page.locator("main form button[type=submit]").click()
    page.wait_for_url("**/dashboard/")
    visited = [*paths(), "/admin/orders/product/add/", "/admin/django_celery_beat/periodictask/add/", "/try-it/"]

    answers = {path: page.goto(path) for path in visited}

    assert {path: answer.status for path, answer in answers.items() if answer and answer.status != 200} == {}
    page.goto("/flower/")
    page.wait_for_url(f"{settings.FLOWER_URL}/**")
    assert len(visited) > 25
