"""The dashboard: for customers their orders and spending, for staff the shop's sales, orders and failures."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

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
