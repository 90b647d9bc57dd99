"""Metrics of reports, read from the index of open ones."""

from collections.abc import Iterator

from django.db.models import Count, Min
from prometheus_client.core import Metric

from myproject.monitoring.gauges import age, database, gauge, gauges

from .models import Report
from .models.reports import OPEN


@database.question
def open_reports() -> Iterator[Metric]:
    rows = Report.objects.filter(status__in=OPEN)
    found = dict(rows.order_by("status").values_list("status").annotate(Count("pk")))
    yield gauges("shop_reports_open", "Open reports.", "status", {s.value: found.get(s, 0) for s in OPEN})
    oldest = rows.aggregate(since=Min("created_at"))["since"]
    yield gauge("shop_reports_oldest_seconds", "Age of the oldest open report.", age(oldest))
