"""What TERM does to a worker of each kind: real workers, in the middle of an order and of a report."""

import json
from typing import Any
from urllib.request import urlopen

import pytest
from django.utils import timezone

from orders.models import Card, Order, Status
from orders.tasks import process_order
from reports.models import Report
from reports.models import Status as ReportStatus
from reports.tasks import check_unfinished_reports, generate_report
from tests.broker import Broker
from tests.factories import make_product, make_report, place_order, put
from tests.operations.test_database import active, slow
from tests.running import sandbox, worker
from tests.shop import SECONDS, wait_for

pytest_plugins = ["tests.broker", "tests.running"]
pytestmark = [pytest.mark.operations, pytest.mark.django_db(transaction=True)]

# As docs/operations/deploys.md wants it for the workers of reports.
HANDS_BACK = {"REMAP_SIGTERM": "SIGQUIT", "SOFT_SHUTDOWN_SECONDS": "1"}

# The slow bank answers in time, before another worker could take the order over.
PATIENT = {"STRIPE_TIMEOUT_SECONDS": "15", "ORDER_LEASE_SECONDS": "60"}


def send(order: Order) -> None:
    # A message brings along the limits that its sender knows, which are those of the short lease of all tests.
    process_order.apply_async(kwargs={"order_id": order.pk}, soft_time_limit=50, time_limit=60)


def charging(order: Order) -> bool:
    return Order.objects.filter(pk=order.pk, status=Status.PROCESSING).exists()


def charges(places: dict[str, str]) -> list[Any]:
    with urlopen(f"{places['SANDBOX_URL']}/ledger.json", timeout=10) as answer:
        return [charge for charge in json.load(answer)["charges"] if charge["status"] == "succeeded"]


def assert_completed_once(order: Order, places: dict[str, str]) -> None:
    product = order.items.get().product
    assert Order.objects.get(pk=order.pk).status == Status.COMPLETED
    assert len(charges(places)) == 1
    assert product.stock == 9
    kinds = list(order.events.order_by("pk").values_list("kind", flat=True))
    assert [kind for kind in kinds if kind in ("processing", "completed")] == ["processing", "completed"]


def test_worker_of_orders_ends_its_order_and_leaves(queue: Broker) -> None:
    order = place_order(product=make_product(stock=10), card=Card.SLOW)

    with sandbox(slow_seconds=5) as places:
        with worker(**places, **PATIENT) as process:
            send(order)
            wait_for(lambda: charging(order), "the worker to charge")
            process.terminate()
            code = process.wait(SECONDS)
        assert_completed_once(order, places)

    assert (code, queue.lengths()["orders"]) == (0, 0)


def test_order_that_was_handed_back_is_ended_once_by_the_next_worker(queue: Broker) -> None:
    order = place_order(product=make_product(stock=10), card=Card.SLOW)

    with sandbox(slow_seconds=5) as places:
        with worker(**places, **PATIENT, **HANDS_BACK) as process:
            send(order)
            wait_for(lambda: charging(order), "the worker to charge")
            process.terminate()
            process.wait(SECONDS)
        handed_back = queue.lengths()["orders"]
        with worker(**places, **PATIENT):
            wait_for(lambda: not charging(order), "the next worker")
        assert_completed_once(order, places)

    assert handed_back == 1


def test_report_that_was_handed_back_is_written_once_by_the_next_worker(queue: Broker) -> None:
    put(place_order(), Status.COMPLETED)
    today = timezone.localdate()
    report = make_report(start=today, end=today)

    with slow("orders_order", 600), worker(options="--queues reports", **HANDS_BACK) as process:
        generate_report.delay(report_id=str(report.pk))
        wait_for(lambda: active("orders_order"), "the worker to read")
        process.terminate()
        # The report would take ten minutes.
        process.wait(SECONDS)
        wait_for(lambda: not active("orders_order"), "its query to end")
    handed_back = queue.messages()
    Report.objects.filter(pk=report.pk).update(due_at=timezone.now())
    with worker():
        check_unfinished_reports.delay()
        wait_for(lambda: Report.objects.filter(pk=report.pk, status=ReportStatus.READY).exists(), "the next worker")

    report.refresh_from_db()
    # At least one: the query that was torn away may have asked for a retry as well.
    assert {kwargs["report_id"] for _, _, kwargs in handed_back} == {str(report.pk)}
    assert report.attempts == 2
    assert report.row_count == 1
