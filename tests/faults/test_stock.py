"""Whatever moves stock, in whatever order: stock = counted - sold + returned + adjusted."""

from collections.abc import Callable

import pytest
from django.db import transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orders import import_services, inventory, services, warehouse
from orders.models import Card, InventorySync, Order, Product, ProductImport, Status, SyncStatus
from tests.factories import claim, make_import, make_product, make_user, place_order

pytestmark = [pytest.mark.django_db, pytest.mark.properties, pytest.mark.timeout(300)]

STOCK = 10


class World:
    """One product, what should be left of it, and the moves that each import which waits has to keep."""

    def __init__(self) -> None:
        self.product, self.buyer = make_product(sku="A-1", stock=STOCK, warehouse_units=STOCK), make_user()
        self.expected, self.level, self.moved = STOCK, STOCK, 0
        self.orders: list[Order] = []
        self.uploads: list[tuple[ProductImport, int, int]] = []

    def move(self, by: int) -> None:
        self.expected += by
        self.moved += by

    def order(self, units: int) -> None:
        order = place_order(self.buyer, self.product, units % 4 + 1, Card.VISA)
        services.reserve([order.pk])
        order.refresh_from_db()
        self.orders.append(order)
        if order.status == Status.PROCESSING:
            self.move(-(units % 4 + 1))

    def decline(self, number: int) -> None:
        self.give_back(number, lambda order: services.release(services.fail(order.payments.get(), "No.")))

    def refund(self, number: int) -> None:
        self.give_back(number, lambda order: services.end_refund(order.payments.get(), "pi", "re"))

    def cancel(self, number: int) -> None:
        if self.orders:
            self.orders[number % len(self.orders)].mark_cancelled()

    def give_back(self, number: int, act: Callable[[Order], object]) -> None:
        reserved = [order for order in self.orders if Order.objects.filter(pk=order.pk, status="processing").exists()]
        if reserved:
            order = reserved[number % len(reserved)]
            act(order)
            self.move(order.items.get().quantity)

    def sync(self, level: int) -> None:
        run = InventorySync.objects.open_one()
        held = claim(run, "sync", status=SyncStatus.RUNNING)
        inventory.apply_page(held, warehouse.Page("", 1, {"A-1": level}, {}, ""), 1)
        held.mark_finished(SyncStatus.SUCCEEDED)
        short = max(0, -(self.expected + level - self.level))
        self.move(level + short - self.level)
        self.level = level + short

    def adjust(self, number: int) -> None:
        by = number - 10
        if Product.objects.filter(pk=self.product.pk).adjust_stock(by):
            self.move(by)

    def upload(self, units: int) -> None:
        row = make_import(f"name,sku,price,stock,category\nLamp,A-1,1,{units},X\n")
        self.uploads.append((row, units, self.moved))

    def take_in(self, number: int) -> None:
        if not self.uploads:
            return
        row, units, moved = self.uploads.pop(number % len(self.uploads))
        import_services.run_import(row.pk)
        # What it counted at the upload, with what has moved since; a line that would end below zero is refused.
        if (wanted := units + self.moved - moved) >= 0:
            self.expected = wanted

    def check(self) -> None:
        self.product.refresh_from_db()
        assert (self.product.stock, self.product.warehouse_units) == (self.expected, self.level)


STEPS = [World.order, World.decline, World.refund, World.cancel, World.sync, World.adjust, World.upload, World.take_in]
plans = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 20)), min_size=3, max_size=25)


@example(plan=[(World.upload, 10), (World.sync, 3), (World.take_in, 0)])
@example(plan=[(World.upload, 50), (World.upload, 50), (World.take_in, 0), (World.order, 1), (World.take_in, 0)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans)
def test_stock_is_what_was_counted_less_what_was_sold(plan: list[tuple[Callable[[World, int], None], int]]) -> None:
    with transaction.atomic():
        world = World()
        for step, number in plan:
            step(world, number)
            world.check()
        transaction.set_rollback(True)
