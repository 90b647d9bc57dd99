"""The status page for staff."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from pytest_django import DjangoAssertNumQueries

from accounts.models import User
from myproject.alerting.models import Canary
from myproject.monitoring import health
from myproject.tasks import wait
from myproject.transport.broker_url import REDIS
from tests.broker import QUEUES, Broker
from tests.factories import make_alert
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db
NOWHERE = "redis://127.0.0.1:1/0"
PAGE = "/dashboard/queues/"


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "readiness", health.Readiness())


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


def make_sweep(number: int = 0, minutes: float = 1) -> PeriodicTask:
    interval, _ = IntervalSchedule.objects.get_or_create(every=60, period=IntervalSchedule.SECONDS)
    ran = timezone.now() - timedelta(minutes=minutes)
    return PeriodicTask.objects.create(
        name=f"Sweep {number}", task="myproject.tasks.heartbeat", interval=interval, last_run_at=ran
    )


def shown(office: Client) -> str:
    return office.get(PAGE).content.decode()


def test_page_is_two_links_at_most_from_the_dashboard(office: Client, broker: Broker) -> None:
    assert f'href="{PAGE}">Status</a>' in office.get("/dashboard/").content.decode()


def test_page_says_that_the_broker_is_away_and_shows_the_rest(office: Client, broker: Broker) -> None:
    make_sweep()
    make_alert()
    broker.use(NOWHERE)

    page = shown(office)

    assert "The broker does not answer" in page
    assert "Sweep 0" in page
    assert "A lamp is out" in page


def test_page_waits_for_a_frozen_broker_no_longer_than_readiness_does(
    office: Client, broker: Broker, monkeypatch: pytest.MonkeyPatch, frozen_redis: None
) -> None:
    monkeypatch.setitem(REDIS.probe_options, "socket_timeout", 30)
    monkeypatch.setattr(health, "FRESH", 60)

    page = shown(office)

    assert "The broker does not answer" in page
    # The page is there, and what readiness has asked, once, has still no answer.
    assert any(isinstance(thread, health.Check) for thread in threading.enumerate())


@pytest.mark.parametrize(("minutes", "said"), [(1, ">seen a"), (5, "last seen 5"), (None, "never seen")])
def test_page_says_when_beat_was_seen(minutes: float | None, said: str, office: Client, broker: Broker) -> None:
    if minutes:
        make_sweep(minutes=minutes)

    assert said in shown(office)


@pytest.mark.parametrize(("minutes", "said"), [(1, "not seen yet"), (5, "never seen")])
def test_page_gives_beat_time_for_its_first_tick(minutes: int, said: str, office: Client, broker: Broker) -> None:
    make_sweep()
    PeriodicTask.objects.update(last_run_at=None, date_changed=timezone.now() - timedelta(minutes=minutes))

    assert said in shown(office)


def test_page_says_how_long_each_queue_takes_and_which_stands_still(office: Client, broker: Broker) -> None:
    now = timezone.now()
    Canary.objects.create(
        queue="orders", sent_at=now - timedelta(seconds=9.5), ran_at=now - timedelta(seconds=7), watched_since=now
    )
    Canary.objects.create(queue="mail", watched_since=now - timedelta(minutes=6))

    page = shown(office)

    assert "2.5 s" in page
    assert page.count("stands still") == 1


def test_page_asks_as_often_for_three_rows_as_for_one(
    office: Client, broker: Broker, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    make_sweep()
    with django_assert_max_num_queries(20) as one:
        shown(office)
    for number in (1, 2):
        make_sweep(number)
        make_alert(cause=f"Lamp {number}")

    with django_assert_max_num_queries(len(one)):
        shown(office)


def test_page_updates_itself_by_its_part_alone(office: Client, broker: Broker) -> None:
    part = office.get(PAGE, headers={"HX-Request": "true", "HX-Target": "status-live"}).content.decode()

    assert "<html" not in part
    assert 'id="status-live"' in part


def test_page_names_the_worker_with_its_queues_and_what_it_runs(shop: Shop, office: Client) -> None:
    wait.delay(seconds=10)

    def is_shown() -> bool:
        page = shown(office)
        return "1 alive" in page and ", ".join(sorted(QUEUES)) in page and "myproject.tasks.wait" in page

    wait_for(is_shown, "the worker at work")
    wait_for(lambda: ">seen " in shown(office), "beat to be seen")
    wait_for(lambda: shown(office).count(" s</td>") >= len(QUEUES), "each queue's canary")
