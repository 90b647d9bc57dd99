"""Whatever order the steps of several tasks and of the customer come in, the database keeps its promises."""

from collections import Counter
from collections.abc import Callable

import pytest
from django.db import transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orders import services
from orders.models import Card, Order, OrderItem, Payment, PaymentStatus, Status
from orders.payments import Charged, Declined, Outcome
from tests.factories import end_lease, make_product, make_user, place_order, running

pytestmark = [pytest.mark.django_db, pytest.mark.properties, pytest.mark.timeout(300)]

STOCK, ORDERS, TASKS = 3, 3, 3


class Provider:
    """Answers a key as it answered it before, and loses some answers after it has charged."""

    def __init__(self) -> None:
        self.charged: dict[str, Outcome] = {}

    def charge(self, payment: Payment) -> Outcome:
        declines = payment.card == Card.DECLINED
        fresh = Declined("No.") if declines else Charged(f"pi_{payment.key}")
        return self.charged.setdefault(str(payment.key), fresh)

    def taken(self, order: Order) -> int:
        keys = {str(payment.key) for payment in order.payments.all()}
        return sum(isinstance(outcome, Charged) for key, outcome in self.charged.items() if key in keys)


class World:
    """Orders of one product, and tasks that stop after any step and go on after any other's."""

    def __init__(self) -> None:
        self.product, self.provider, buyer = make_product(stock=STOCK), Provider(), make_user()
        cards = [Card.VISA, Card.DECLINED, Card.VISA]
        self.orders = [place_order(buyer, self.product, number % 2 + 1, cards[number]) for number in range(ORDERS)]
        self.claimed: dict[int, list[Order]] = {task: [] for task in range(TASKS)}
        self.asked: dict[int, dict[Payment, Outcome]] = {task: {} for task in range(TASKS)}

    def claim(self, task: int, order: int) -> None:
        # Two tasks of the three have one id: a message that was delivered twice.
        with running(f"task-{task // 2}"):
            self.claimed[task] = Order.objects.claim_with_others(self.orders[order].pk, limit=2)

    def reserve(self, task: int, order: int) -> None:
        services.reserve(order.pk for order in self.claimed[task])

    def charge(self, task: int, order: int) -> None:
        payments = Payment.objects.filter(order__in=self.claimed[task], status=PaymentStatus.STARTED)
        charging = payments.filter(order__status=Status.PROCESSING).order_by("order")
        self.asked[task] = {payment: self.provider.charge(payment) for payment in charging}

    def settle(self, task: int, order: int) -> None:
        services.settle(self.asked[task], Order.objects.held(self.claimed[task]))

    def run(self, task: int, order: int) -> None:
        for step in (self.claim, self.reserve, self.charge, self.settle):
            step(task, order)

    def lose(self, task: int, order: int) -> None:
        """The answer never arrives, although the provider has charged."""
        self.asked[task] = {}

    def end_lease(self, task: int, order: int) -> None:
        if Order.objects.open().filter(pk=self.orders[order].pk).exists():
            end_lease(self.orders[order])

    def cancel(self, task: int, order: int) -> None:
        self.orders[order].mark_cancelled()

    def pay_again(self, task: int, order: int) -> None:
        services.pay_again(self.orders[order], Card.VISA)

    def finish(self) -> None:
        """What the sweep does in the end: everything that is open is run to its end, alone."""
        for number, order in enumerate(self.orders):
            if Order.objects.open().filter(pk=order.pk).exists():
                end_lease(order)
                self.run(TASKS - 1, number)

    def check_stock(self) -> None:
        holding = OrderItem.objects.filter(order__status__in=[Status.PROCESSING, Status.COMPLETED])
        held = sum(holding.filter(product=self.product).values_list("quantity", flat=True))
        self.product.refresh_from_db()
        assert self.product.stock + held == STOCK

    def check_end(self) -> None:
        for order in self.orders:
            order.refresh_from_db()
            completed = order.status == Status.COMPLETED
            kinds = Counter(order.events.order_by().values_list("kind", flat=True))
            assert not order.is_open
            assert self.provider.taken(order) == completed
            assert kinds["completed"] == completed
            assert order.payments.filter(status=PaymentStatus.SUCCEEDED).count() == completed


STEPS = [World.claim, World.reserve, World.charge, World.lose, World.settle, World.run]
STEPS += [World.end_lease, World.cancel, World.pay_again]
plans = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, TASKS - 1), st.integers(0, ORDERS - 1)), min_size=5, max_size=30
)
# The decline of the first card arrives when the second card is being charged.
LATE_DECLINE = [(World.claim, 0, 1), (World.reserve, 0, 1), (World.charge, 0, 1), (World.claim, 1, 1)]
LATE_DECLINE += [(World.charge, 1, 1), (World.settle, 0, 1), (World.pay_again, 0, 1), (World.claim, 0, 1)]
LATE_DECLINE += [(World.reserve, 0, 1), (World.charge, 0, 1), (World.settle, 1, 1), (World.settle, 0, 1)]


@example(plan=LATE_DECLINE)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans)
def test_steps_in_any_order(plan: list[tuple[Callable[[World, int, int], None], int, int]]) -> None:
    """Any interleaving of steps: stock conserved after each; in the end each order ended, charged once or not."""
    with transaction.atomic():
        world = World()
        for step, task, order in plan:
            step(world, task, order)
            world.check_stock()
        world.finish()
        world.check_stock()
        world.check_end()
        transaction.set_rollback(True)
