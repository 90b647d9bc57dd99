"""What the database tells, and that each live part of a page has something that tells it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django_celery_results.models import TaskResult

from myproject.live.listener import parameters
from orders.models import InventorySync, Order, OrderEvent
from orders.models.events import Kind
from tests.factories import make_import, make_pack, make_report, make_schedule, make_user, place_order

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what is told within the block."""
    told: list[str] = []
    database = settings.DATABASES["default"] | {"NAME": connection.settings_dict["NAME"]}
    with psycopg.connect(**parameters(database), autocommit=True) as listening:
        listening.execute("LISTEN live")
        yield told
        told += sorted(notification.payload for notification in listening.notifies(timeout=0.5))


def test_each_change_of_an_order_is_told_to_its_page() -> None:
    order = place_order()

    with heard() as told:
        Order.objects.filter(pk=order.pk).flag("Odd.")

    assert told == [f"orders:{order.customer_id}:{order.pk}"]


def test_batch_is_told_by_the_statement_that_writes_its_events() -> None:
    orders = [place_order() for _ in range(3)]

    with heard() as told, CaptureQueriesContext(connection) as queries:
        OrderEvent.objects.record([order.pk for order in orders], Kind.RETRY)

    assert told == sorted(f"orders:{order.customer_id}:{order.pk}" for order in orders)
    assert [query["sql"].partition(" ")[0] for query in queries] == ["INSERT"]


def test_report_is_told_to_who_asked_to_its_readers_its_pack_and_its_schedule() -> None:
    schedule, pack, reader = make_schedule(), make_pack(), make_user()
    report = make_report(schedule=schedule, pack=pack)
    report.readers.add(reader)

    with heard() as told:
        report.mark_cancelled()

    assert told == sorted(
        [
            f"reports:{report.requested_by_id}:{report.pk}",
            f"reports:{reader.pk}:{report.pk}",
            f"schedules:{schedule.pk}",
            f"packs:{pack.requested_by_id}:{pack.pk}",
        ]
    )


MAKE: dict[str, Callable[[], tuple[object, ...]]] = {
    "pack": lambda: ("packs", (pack := make_pack()).requested_by_id, pack.pk),
    "import": lambda: ("imports", make_import("sku\n").pk),
    "sync": lambda: ("syncs", InventorySync.objects.open_one().pk),
}


@pytest.mark.parametrize("kind", MAKE)
def test_new_row_is_told(kind: str) -> None:
    with heard() as told:
        channel = ":".join(map(str, MAKE[kind]()))

    assert channel in told


def test_results_of_samples_are_told_to_who_queued_them() -> None:
    with heard() as told:
        TaskResult.objects.create(task_id=f"try-7-{'a' * 32}-0")
        TaskResult.objects.create(task_id="b" * 32)

    assert told == ["samples:7"]


def test_each_live_part_of_a_page_is_told_of_by_the_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname LIKE 'live\\_%'")
        told = set(re.findall(r"concat_ws\(':', '(\w+)'", "".join(source for (source,) in cursor.fetchall())))
    pages = "".join(path.read_text() for path in (settings.BASE_DIR / "templates").rglob("*.html"))

    wanted = set(re.findall(r'{% live(?:_list)? \S+ "(\w+)"', pages))

    assert wanted
    assert wanted <= told
