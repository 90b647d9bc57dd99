"""Metrics of orders, read from small indexes or for the last minutes only."""

from collections.abc import Iterator
from datetime import timedelta

from django.db import connection
from django.db.models import Count, Min
from django.utils import timezone
from prometheus_client.core import Metric

from myproject.monitoring.gauges import age, database, gauge, gauges

from .models import OPEN, UNSOLD, Order, OrderEvent, Payment, Status
from .models.events import NOISE

RECENT = timedelta(minutes=15)
QUANTILES = [0.5, 0.95, 1.0]
# From the click that opened it to its completion; of a rush the newest thousands tell enough.
TIMES = """
SELECT percentile_cont(%s::float[]) WITHIN GROUP (ORDER BY seconds) FROM (
    SELECT extract(epoch FROM completed_at - opened_at)::float AS seconds FROM orders_order
    WHERE completed_at >= %s ORDER BY completed_at DESC LIMIT 5000
) AS newest
"""


@database.question
def open_orders() -> Iterator[Metric]:
    found = Order.objects.count_unfinished()
    yield gauges("shop_orders_open", "Orders on their way.", "status", {s.value: found[s] for s in OPEN})
    # Those that wait for a person are not late: they are counted by themselves.
    oldest = Order.objects.open().filter(flagged_at=None).aggregate(since=Min("opened_at"))["since"]
    yield gauge("shop_orders_oldest_seconds", "For how long the oldest of them has been on its way.", age(oldest))
    yield gauge("shop_orders_flagged", "Orders that need a person.", found["flagged"])


@database.question
def ended_orders() -> Iterator[Metric]:
    """Read from rows: a process that is killed after the commit would not have counted the order."""
    since = timezone.now() - RECENT
    unsold = Order.objects.unsold_since(since).by_status()
    ended = {status.value: unsold.get(status, 0) for status in UNSOLD}
    ended[Status.COMPLETED.value] = Order.objects.completed_since(since).count()
    yield gauges("shop_orders_ended", "Orders of the last 15 minutes that ended so.", "status", ended)
    with connection.cursor() as cursor:
        cursor.execute(TIMES, [QUANTILES, since])
        seconds = cursor.fetchone()[0] or [0.0] * len(QUANTILES)
    found = {f"{quantile:g}": value for quantile, value in zip(QUANTILES, seconds, strict=True)}
    yield gauges("shop_order_seconds", "From click to completed, in the last 15 minutes.", "quantile", found)


@database.question
def troubles() -> Iterator[Metric]:
    recent = OrderEvent.objects.filter(kind__in=NOISE, created_at__gte=timezone.now() - RECENT)
    found = dict(recent.order_by("kind").values_list("kind").annotate(Count("pk")))
    words = "Orders that were retried, queued again or taken over from a dead worker, in the last 15 minutes."
    yield gauges("shop_order_troubles", words, "kind", {kind.value: found.get(kind, 0) for kind in NOISE})


@database.question
def refunds() -> Iterator[Metric]:
    wanted = Payment.objects.refund_wanted().aggregate(count=Count("pk"), since=Min("refund_wanted_at"))
    yield gauge("shop_refunds_wanted", "Refunds under way.", wanted["count"])
    yield gauge("shop_refunds_oldest_seconds", "For how long the oldest of them is wanted.", age(wanted["since"]))
