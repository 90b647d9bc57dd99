"""Results that are not kept in the database: what pages show of them, and what happens when their Redis is away."""

from collections.abc import Callable

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from accounts.models import User
from myproject.celery import app
from myproject.transport import results
from tests.broker import Broker

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Keep results in a Redis that is away."""
    settings.RESULTS_IN_DATABASE = False
    settings.CELERY_RESULT_BACKEND = NOWHERE
    use_backend(NOWHERE, monkeypatch)


def use_backend(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # One must be there, to be put back.
    assert app.backend
    # Celery itself looks here first.
    monkeypatch.setenv("CELERY_RESULT_BACKEND", url)
    monkeypatch.setattr(app, "_backend", app._get_backend())


@pytest.mark.usefixtures("elsewhere")
def test_task_is_queued_when_the_redis_of_results_is_away(broker: Broker, office: Client) -> None:
    answer = office.post("/try-it/add/", {"x": "2", "y": "3", "queue": "default"})

    assert (answer.status_code, broker.lengths()["default"]) == (302, 1)
    assert "Queued" in office.get("/try-it/").content.decode()


@pytest.mark.usefixtures("elsewhere")
def test_task_ends_well_when_the_redis_of_results_is_away() -> None:
    assert app.backend.store_result("done", 5, "SUCCESS") == 5

    assert results.find(["done"]) == {}


@pytest.mark.usefixtures("elsewhere")
def test_dashboard_says_that_it_cannot_list_failures(office: Client) -> None:
    page = office.get("/dashboard/").content.decode()

    assert "Failed tasks cannot be listed here" in page
    assert "None. All that began has ended well" not in page


@pytest.mark.usefixtures("elsewhere")
def test_admin_says_that_its_list_is_old(office: Client) -> None:
    page = office.get("/admin/django_celery_results/taskresult/").content.decode()

    assert "New results are not kept in the database" in page


def test_results_of_a_cache_are_found_in_one_query(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    settings.RESULTS_IN_DATABASE, settings.CELERY_RESULT_BACKEND = False, "django-cache"
    use_backend("django-cache", monkeypatch)
    app.backend.mark_as_done("done", 5)
    app.backend.mark_as_failure("broken", ValueError("no lamp"))

    with django_assert_num_queries(1):
        found = results.find(["done", "broken", "unknown"])

    assert {pk: (result.status, result.outcome) for pk, result in found.items()} == {
        "done": ("SUCCESS", "5"),
        "broken": ("FAILURE", "ValueError: no lamp"),
    }
