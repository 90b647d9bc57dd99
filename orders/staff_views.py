"""The orders of all customers, for staff."""

import json
from collections.abc import Callable

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe
from structlog.contextvars import bound_contextvars

from myproject.web.confirming import MAX_CONFIRMED, seen_by, why_not
from myproject.web.pages import staff_may
from myproject.web.paging import page_of

from . import services, tasks
from .forms import OrderFilter
from .models import Order, OrderQuerySet, actor

PER_PAGE = 25
# What needs a person comes first, in a list of its own: the flag has an index, and few orders.
FLAGGED = 25


@require_safe
@staff_may("orders.view_order")
def order_list(request: HttpRequest) -> HttpResponse:
    found = OrderFilter(request.GET, Order.objects.select_related("customer"))
    context = {
        "filter": found,
        "flagged": found.qs.flagged().order_by("flagged_at", "pk")[:FLAGGED],
        # By primary key, which is the order in which they were placed.
        "page": page_of(request, found.qs.filter(flagged_at=None).order_by("-pk"), PER_PAGE),
    }
    return render(request, "orders/staff_list.html", context)


@require_POST
@staff_may("orders.change_order")
def requeue_many(request: HttpRequest) -> HttpResponse:
    requeued = _chosen(request).open().mark_requeued(f"by {actor(request.user)}")
    for pk, reference in requeued.items():
        with bound_contextvars(order=reference):
            tasks.process_order.delay_on_commit(order_id=pk)
    messages.success(request, f"{len(requeued)} queued again; others are not open.")
    return redirect("orders:staff-list")


@require_POST
@staff_may("orders.refund_order")
@transaction.atomic
def refund_many(request: HttpRequest) -> HttpResponse:
    """Ask whether these orders are to be refunded; when they are as the page said, refund them."""
    rows = _chosen(request).select_for_update(of=["self"]).prefetch_related("payments").order_by("pk")
    if not rows or len(rows) > MAX_CONFIRMED:
        messages.error(request, f"Please choose at least one order, and at most {MAX_CONFIRMED}.")
        return redirect("orders:staff-list")
    now, seen = {order.reference: order.shown for order in rows}, seen_by(request)
    if seen != now:
        if changed := why_not(seen, now):
            messages.error(request, changed)
        return render(request, "orders/refund_many.html", {"rows": now, "seen": json.dumps(now)})
    count = _each(rows, actor(request.user), services.want_refund)
    messages.success(request, f"{count} will be refunded; for others nothing was paid, or it is under way.")
    return redirect("orders:staff-list")


def _chosen(request: HttpRequest) -> OrderQuerySet:
    return Order.objects.filter(reference__in=request.POST.getlist("order"))


def _each(rows: OrderQuerySet, by: str, change: Callable[[Order, str], bool]) -> int:
    changed = [order for order in rows if change(order, by)]
    for order in changed:
        with bound_contextvars(order=order.reference):
            tasks.refund_order.delay_on_commit(order_id=order.pk)
    return len(changed)
