"""The dashboard: for customers their orders and spending, for staff the shop's sales, orders and failures."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from myproject.web.pages import staff_may
from orders.models import Order

from . import figures
from .models import Report


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    reports = Report.objects.listed_for(request.user).order_by("-created_at")[:5]
    shown = figures.of_the_shop() if request.user.is_staff else _own(request)
    return render(request, "dashboard.html", {"reports": reports, **shown})


def _own(request: HttpRequest) -> dict[str, Any]:
    orders = Order.objects.of(request.user).order_by("-created_at", "-pk")[:5]
    return {"orders": orders, "spending": figures.spending(request.user)}


@require_safe
@staff_may("orders.view_order")
def now(request: HttpRequest) -> HttpResponse:
    """Render the live part of the dashboard: open orders and the latest events."""
    return render(request, "reports/_now.html", figures.now())
