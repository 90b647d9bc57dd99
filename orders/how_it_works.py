"""The page that explains the shop: an order's steps, which light up while an order of the visitor's runs."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from myproject.monitoring import task_table
from myproject.traces.readers import may_look

from .models import Kind, Order, OrderEvent

# How long after its last step an order's steps stay lit.
FRESH = timedelta(minutes=10)
ENDS = (Kind.COMPLETED, Kind.PAYMENT_FAILED, Kind.REJECTED, Kind.CANCELLED)


class Step(NamedTuple):
    """A station of the way; any of the `kinds` of events says that it has been passed."""

    where: str
    title: str
    text: str
    code: str
    kinds: tuple[Kind, ...]

    @property
    def parts(self) -> list[str]:
        """The file's path, in the parts between which a line may break."""
        return re.split(r"(?<=/)", self.code)


TAKEN = (Kind.PROCESSING, Kind.REJECTED)
STEPS = [
    Step("Web", "Write the row", "One transaction: order, items, payment, key.", "orders/services.py", (Kind.PLACED,)),
    Step("Redis", "Send a message", "After the commit: look at row 42 now.", "orders/views.py", TAKEN),
    Step("Worker", "Claim and reserve", "A lease and the stock, in one transaction.", "orders/tasks.py", TAKEN),
    Step("Provider", "Charge", "Over HTTP, with the key, no transaction open.", "orders/payments.py", ENDS),
    Step("Worker", "Settle", "Paid or declined: one conditional update.", "orders/services.py", ENDS),
    Step("Mail", "Confirm", "A task of its own, recorded on the order.", "orders/emails.py", (Kind.CONFIRMED,)),
]


class Lit(NamedTuple):
    """A step as the visitor's newest order stands: *done*, *now* or *later*; milliseconds since the click."""

    step: Step
    state: str
    after: float | None


@login_not_required
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Show the way of an order; htmx asks for the part that lights up."""
    order = newest_of(request)
    events = list(order.events.order_by("created_at", "pk")) if order else []
    context: dict[str, object] = {"order": order, "steps": lit(order, events), "rescued": any(map(is_rescue, events))}
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "orders/_how_it_works.html", context)
    if may_look(request):
        context |= {"tasks": task_table.rows(), "most_runs": task_table.MOST_RUNS}
    return render(request, "orders/how_it_works.html", context)


def newest_of(request: HttpRequest) -> Order | None:
    """Return the visitor's newest order, if it was placed just now."""
    if not request.user.is_authenticated:
        return None
    fresh = Order.objects.of(request.user).filter(created_at__gt=timezone.now() - FRESH)
    return fresh.order_by("-created_at", "-pk").first()


def lit(order: Order | None, events: Sequence[OrderEvent]) -> list[Lit]:
    waits = order is not None and (order.is_open or (order.mail_due_at is not None and order.mail_sent_at is None))
    found = []
    for step in STEPS:
        at = next((event.created_at for event in events if event.kind in step.kinds), None)
        state = "done" if at else "now" if waits else "later"
        waits = waits and state != "now"
        after = (at - events[0].created_at) / timedelta(milliseconds=1) if at else None
        found.append(Lit(step, state, after))
    return found


def is_rescue(event: OrderEvent) -> bool:
    return event.kind in (Kind.RETRY, Kind.INTERRUPTED, Kind.REQUEUED)
