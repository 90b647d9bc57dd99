"""The small messages that show how long each queue takes, and that a queue which stands still is told of."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from durable.schedules import declared
from myproject import tasks
from myproject.alerting.canaries import arrive
from myproject.alerting.models import Alert, Canary
from myproject.celery import app
from tests.broker import QUEUES, Broker
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


def ago(minutes: float) -> datetime:
    return timezone.now() - minutes * MINUTE


def make_canaries(minutes: float = 1) -> None:
    """Let a canary have come through each queue, this long ago."""
    for queue in QUEUES:
        Canary.objects.create(queue=queue, sent_at=ago(minutes), ran_at=ago(minutes), watched_since=ago(minutes))


def stand_still(queue: str, minutes: float) -> None:
    Canary.objects.filter(queue=queue).update(sent_at=ago(minutes), watched_since=ago(minutes))


def causes() -> dict[str, int]:
    return dict(Alert.objects.order_by("cause").values_list("cause", "count"))


# --- What is noted ---


def test_canary_says_how_long_it_waited(broker: Broker) -> None:
    tasks.canary.apply(kwargs={"queue": "mail"}, headers={"sent_at": time.time() - 5})

    in_queue = Canary.objects.get(queue="mail").in_queue

    assert in_queue is not None
    assert timedelta(seconds=5) <= in_queue < timedelta(seconds=30)


@pytest.mark.parametrize("told", [1e10, 1e300, float("nan"), float("inf"), -1e300, 10**400, "soon", None, [], True])
def test_canary_with_an_odd_time_silences_no_watch(told: object, broker: Broker) -> None:
    tasks.canary.apply(kwargs={"queue": "mail"}, headers={"sent_at": told}).get()
    noted = Canary.objects.get(queue="mail").sent_at

    arrive("mail", now := timezone.now())

    assert noted is not None
    assert abs(noted - now) < MINUTE
    assert Canary.objects.get(queue="mail").sent_at == now


@pytest.mark.proves("myproject.tasks.canary", "twice")
def test_canary_twice_is_once(broker: Broker) -> None:
    sent_at = ago(0.1)
    arrive("mail", sent_at)
    before = Canary.objects.values().get(queue="mail")

    arrive("mail", sent_at)

    assert Canary.objects.values().get(queue="mail") == before
    assert before["sent_at"] == sent_at


def test_late_canary_never_moves_its_row_back(broker: Broker) -> None:
    arrive("mail", newest := ago(1))

    arrive("mail", ago(3))

    assert Canary.objects.get(queue="mail").sent_at == newest


def test_beat_sends_one_to_each_queue_itself() -> None:
    sent = {each.queue: each.kwargs for each in declared().values() if each.task == tasks.canary.name}

    assert sent == {queue: {"queue": queue} for queue in QUEUES}


# --- Who is told ---


@pytest.mark.django_db(transaction=True)
def test_queue_that_moves_tells_of_one_that_stands_still_once(broker: Broker) -> None:
    make_canaries()
    stand_still("mail", 6)

    for seconds in (3, 2, 1):
        arrive("orders", ago(seconds / 60))

    assert causes() == {"canary mail": 1}
    assert "does a worker read it" in Alert.objects.get().message
    # Through a queue that moves: the alert's own is the one that does not.
    assert [(queue, task) for queue, task, _ in broker.messages()] == [("orders", "myproject.tasks.send_alert")]


def test_queue_that_stands_still_is_told_of_again_after_the_cool_down(broker: Broker) -> None:
    make_canaries()
    stand_still("mail", 30)
    arrive("orders", ago(0.2))
    Canary.objects.filter(queue="mail").update(told_at=timezone.now() - settings.ALERT_COOL_DOWN - MINUTE)

    arrive("orders", ago(0.1))

    assert causes() == {"canary mail": 2}


def test_each_queue_has_a_patience_of_its_own(broker: Broker) -> None:
    make_canaries()
    for queue in QUEUES:
        stand_still(queue, 6)
    Canary.objects.filter(queue="default").update(sent_at=ago(1), watched_since=ago(1))

    arrive("default", ago(0.1))

    assert causes() == {"canary mail": 1, "canary orders": 1}


def test_queue_that_no_worker_ever_read_is_told_of(broker: Broker) -> None:
    arrive("orders", ago(1))
    Canary.objects.filter(queue="mail").update(watched_since=ago(6))

    arrive("orders", ago(0))

    assert Canary.objects.get(queue="mail").in_queue is None
    assert causes() == {"canary mail": 1}


def test_no_alert_when_no_canary_was_sent_for_a_while(broker: Broker) -> None:
    make_canaries(minutes=120)

    for queue in QUEUES:
        arrive(queue, ago(0.1))

    assert causes() == {}


def test_queue_that_moves_again_forgets_that_somebody_was_told(broker: Broker) -> None:
    make_canaries()
    stand_still("mail", 2)
    Canary.objects.filter(queue="mail").update(told_at=timezone.now())

    arrive("mail", ago(0))

    assert Canary.objects.get(queue="mail").told_at is None


# --- With a real worker ---


@pytest.fixture
def without_mail(shop: Shop) -> Iterator[None]:
    """A worker that does not read the queue of mails."""
    app.control.cancel_consumer("mail")
    yield
    app.control.add_consumer("mail")


@pytest.mark.proves("myproject.tasks.canary", "worker")
def test_worker_runs_a_canary_of_each_queue_and_tells_of_the_queue_that_it_does_not_read(
    shop: Shop, without_mail: None
) -> None:
    others = Canary.objects.exclude(queue="mail")
    wait_for(lambda: others.filter(ran_at__gte=datetime.now(UTC) - MINUTE).count() == 4, "the other queues' canaries")
    # Read and sent before it was cancelled, one may still come.
    wait_for(lambda: Canary.objects.filter(queue="mail").update(watched_since=ago(6)), "its row")

    wait_for(Alert.objects.filter(cause="canary mail", sent_at__isnull=False).exists, "the alert to be told")

    assert [chat["title"] for chat in shop.sandbox("/chat.json") if "mail stands still" in chat["title"]]
