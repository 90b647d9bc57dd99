"""The dashboard: one's own orders and spending; for staff the shop's sales, orders, queues and failures."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from myproject import broker
from myproject.web import staff_only
from orders.models import Order

from . import figures
from .models import Report


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    context = {
        "orders": Order.objects.of(request.user).order_by("-created_at", "-pk")[:5],
        "spending": figures.spending(request.user),
        "reports": Report.objects.listed_for(request.user).order_by("-created_at")[:5],
    }
    if request.user.is_staff:
        context |= figures.of_the_shop()
    return render(request, "dashboard.html", context)


@require_safe
@staff_only
def queues(request: HttpRequest) -> HttpResponse:
    """What waits and who works: on its own, since asking the workers takes time, and the broker may be away."""
    template = "reports/_queues.html" if request.headers.get("HX-Request") else "reports/queues.html"
    return render(request, template, _asked())


def _asked() -> dict[str, Any]:
    try:
        with broker.connected() as connection:
            return {"queues": broker.waiting(connection), "workers": broker.workers(connection)}
    except broker.Away:
        return {"is_away": True}
