"""What the shop makes of the warehouse's levels, whatever orders do meanwhile and wherever it dies."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from django.conf import settings as project
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.models import User
from durable.errors import TemporaryError
from orders import inventory, services, tasks, warehouse
from orders.models import HIGHEST_STOCK, Card, Difference, InventorySync, Order, Product, Status, SyncStatus
from orders.schedules import SCHEDULES
from tests.broker import Broker
from tests.factories import claim, make_product, place_order
from tests.sandbox.conftest import Sandbox
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def building(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("warehouse")) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(building: Sandbox, settings: Settings) -> Sandbox:
    building.ask("/controls", method="DELETE")
    settings.WAREHOUSE_URL = f"{building.url}/warehouse"
    return building


def move(sandbox: Sandbox, product: Product | str, units: int) -> None:
    sku = product if isinstance(product, str) else product.sku
    sandbox.ask("/warehouse/movements", {"movements": [{"sku": sku, "units": units}]})


def stocked(sandbox: Sandbox, units: int = 10, **fields: Any) -> Product:
    """Return a product whose stock follows the warehouse's level."""
    product = make_product(sku=f"W-{uuid4().hex[:12]}", stock=units, warehouse_units=units, **fields)
    move(sandbox, product, units)
    return product


def sync() -> InventorySync:
    tasks.sync_inventory.apply()
    return InventorySync.objects.latest("pk")


def stock_of(product: Product) -> int:
    product.refresh_from_db()
    return product.stock


def differences(run: InventorySync, product: Product | str) -> list[tuple[str, str]]:
    sku = product if isinstance(product, str) else product.sku
    return list(run.differences.filter(sku=sku).order_by("kind").values_list("kind", "detail"))


# --- What a level means ---


def test_sync_adds_what_arrived_and_takes_what_broke(sandbox: Sandbox) -> None:
    arrived, broken = stocked(sandbox), stocked(sandbox)
    move(sandbox, arrived, 20)
    move(sandbox, broken, -3)

    run = sync()

    assert (stock_of(arrived), stock_of(broken)) == (30, 7)
    assert (run.status, run.changed, run.error) == (SyncStatus.SUCCEEDED, 2, "")


@pytest.mark.parametrize("spelled", ["w-{}", "W-{}\u200b"])
def test_sync_knows_a_sku_that_the_warehouse_spells_otherwise(spelled: str, sandbox: Sandbox) -> None:
    number = uuid4().hex[:12].upper()
    product = make_product(sku=f"W-{number}", stock=5)
    move(sandbox, spelled.format(number), 20)

    run = sync()

    assert stock_of(product) == 20
    assert differences(run, product) == [(Difference.CORRECTED, "From 5 to 20.")]
    assert differences(run, spelled.format(number)) == []


def test_sync_applies_no_level_that_is_told_in_two_spellings(sandbox: Sandbox) -> None:
    product = stocked(sandbox)
    other = product.sku.lower()
    move(sandbox, other, 20)

    run = sync()

    assert stock_of(product) == 10
    assert differences(run, other) == [(Difference.UNUSABLE, f"It is told more than once, here as {product.sku}.")]


@pytest.mark.proves("orders.tasks.sync_inventory", "twice", page="orders:sync")
def test_sync_twice_is_once(sandbox: Sandbox) -> None:
    product = stocked(sandbox)
    move(sandbox, product, 20)

    changed = [sync().changed for _ in range(2)]

    assert (stock_of(product), changed) == (30, [1, 0])


def test_sync_keeps_what_orders_have_taken(sandbox: Sandbox) -> None:
    product = stocked(sandbox)
    order = place_order(product=product, quantity=4)
    services.reserve([order.pk])
    move(sandbox, product, 20)

    sync()

    assert stock_of(product) == 26


def test_first_level_of_a_product_sets_its_stock_less_what_orders_hold(sandbox: Sandbox) -> None:
    product = make_product(sku=f"W-{uuid4().hex[:12]}", stock=5)
    held, waiting = place_order(product=product, quantity=2), place_order(product=product, quantity=3)
    services.reserve([held.pk])
    move(sandbox, product, 50)

    run = sync()

    assert Order.objects.get(pk=waiting.pk).status == Status.PENDING
    assert stock_of(product) == 48
    assert differences(run, product) == [(Difference.CORRECTED, "From 3 to 48.")]


def test_first_sync_of_the_seeded_shop_changes_no_stock(tmp_path: Path, settings: Settings) -> None:
    call_command("seed_demo")
    before = dict(Product.objects.values_list("sku", "stock"))

    with Sandbox(tmp_path) as own:
        settings.WAREHOUSE_URL = f"{own.url}/warehouse"
        run = sync()

    assert dict(Product.objects.values_list("sku", "stock")) == before
    assert (run.seen, run.differences.count(), bool(run.etag)) == (48, 0, True)


def test_sync_takes_no_more_than_there_is_and_the_rest_when_something_comes_back(sandbox: Sandbox) -> None:
    product = stocked(sandbox, 5)
    order = place_order(product=product, quantity=4)
    services.reserve([order.pk])
    move(sandbox, product, -3)

    first = sync()
    short = stock_of(product)
    services.release([order.pk])
    sync()

    assert differences(first, product) == [(Difference.OVERSOLD, "2 units too many are sold or reserved.")]
    assert (short, stock_of(product), product.warehouse_units) == (0, 2, 2)


def test_sync_adds_no_more_than_can_be_counted_and_the_rest_when_there_is_room(sandbox: Sandbox) -> None:
    product = stocked(sandbox)
    Product.objects.filter(pk=product.pk).update(stock=HIGHEST_STOCK - 1)
    move(sandbox, product, 20)

    found = differences(sync(), product)
    full = stock_of(product)
    Product.objects.filter(pk=product.pk).adjust_stock(-100)
    run = sync()

    assert (full, found) == (HIGHEST_STOCK, [("unusable", "The stock has no room for 19 of these units.")])
    assert (stock_of(product), differences(run, product)) == (HIGHEST_STOCK - 81, [])


def test_sync_makes_up_for_a_shortage_first_when_goods_arrive(sandbox: Sandbox) -> None:
    product = stocked(sandbox, 5)
    Product.objects.filter(pk=product.pk).update(stock=1)
    move(sandbox, product, -3)
    sync()
    move(sandbox, product, 10)

    run = sync()

    assert (stock_of(product), differences(run, product)) == (8, [])


def test_sync_reports_what_one_side_does_not_know(sandbox: Sandbox) -> None:
    ours, withdrawn = make_product(), make_product(is_active=False)
    theirs = f"W-{uuid4().hex[:12]}"
    move(sandbox, theirs, 1)

    run = sync()

    assert differences(run, theirs) == [(Difference.UNKNOWN_HERE, "")]
    assert differences(run, ours) == [(Difference.UNKNOWN_THERE, "")]
    assert differences(run, withdrawn) == []


def test_sync_applies_no_level_below_zero(sandbox: Sandbox) -> None:
    product = make_product(sku=f"0-{uuid4().hex[:12]}", stock=7, warehouse_units=7)
    move(sandbox, product, 7)
    sandbox.switch_on("warehouse_negative", count=1)

    first = min(page.skus[0] for page in warehouse.pages())
    Product.objects.filter(pk=product.pk).update(sku=f"old-{product.sku}")
    product = make_product(sku=first, stock=7, warehouse_units=7)
    sandbox.switch_on("warehouse_negative", count=1)
    run = sync()

    assert differences(run, product) == [(Difference.UNUSABLE, "It told -1 units.")]
    assert (stock_of(product), run.etag) == (7, "")


# --- Asking no more than needed ---


@pytest.fixture
def known(tmp_path: Path, settings: Settings) -> Iterator[Sandbox]:
    """A warehouse of which the shop knows each SKU."""
    call_command("seed_demo")
    with Sandbox(tmp_path) as own:
        settings.WAREHOUSE_URL = f"{own.url}/warehouse"
        yield own


def test_sync_reads_nothing_when_nothing_has_changed(known: Sandbox) -> None:
    sync()

    with patch.object(inventory, "apply_page") as apply_page:
        runs = [sync() for _ in range(2)]

    assert ([run.status for run in runs], apply_page.call_count) == ([SyncStatus.UNCHANGED] * 2, 0)


def test_sync_reads_again_when_something_has_changed(known: Sandbox) -> None:
    product = Product.objects.get(sku="LIT-001")
    sync()
    sync()
    move(known, product, 3)

    run = sync()

    assert (run.status, run.changed, stock_of(product)) == (SyncStatus.SUCCEEDED, 1, product.stock)


def test_sync_takes_a_product_over_that_the_shop_learns_of_later(known: Sandbox) -> None:
    move(known, "NEW-1", 9)
    sync()
    product = make_product(sku="NEW-1", stock=0)

    sync()

    assert stock_of(product) == 9


def test_sync_is_off_when_there_is_no_warehouse(settings: Settings) -> None:
    settings.WAREHOUSE_URL = ""

    tasks.sync_inventory.apply().get()

    assert not InventorySync.objects.exists()


# --- One at a time, and to the end ---


def test_at_most_one_run_is_unfinished() -> None:
    InventorySync.objects.open_one()

    with pytest.raises(IntegrityError, match="sync_one_unfinished"):
        InventorySync.objects.create(status=SyncStatus.RUNNING, due_at=timezone.now())


def test_open_one_is_the_same_until_it_is_finished() -> None:
    first, same = InventorySync.objects.open_one(), InventorySync.objects.open_one()
    InventorySync.objects.filter(pk=first.pk).close(SyncStatus.FAILED)

    assert first == same != InventorySync.objects.open_one()


def test_claim_leaves_a_run_to_the_task_that_holds_it() -> None:
    run = InventorySync.objects.open_one()

    won = [claim(run, task) is not None for task in ("one", "other", "one")]
    InventorySync.objects.update(due_at=timezone.now())

    assert (won, claim(run, "other") is not None) == ([True, False, True], True)


def test_run_that_was_taken_over_writes_no_more(sandbox: Sandbox) -> None:
    product = stocked(sandbox)
    move(sandbox, product, 20)
    late = claim(InventorySync.objects.open_one(), "late", status=SyncStatus.RUNNING)
    InventorySync.objects.update(claimed_by="other")

    inventory.synchronise(late)

    assert stock_of(product) == 10
    assert InventorySync.objects.get().status == SyncStatus.RUNNING


def test_run_that_breaks_off_goes_on_without_doubling(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    products = sorted((stocked(sandbox) for _ in range(4)), key=lambda product: product.sku)
    for product in products:
        move(sandbox, product, 5)
    monkeypatch.setattr(warehouse, "PAGE_SIZE", 1)
    calls: list[str] = []

    def break_off(run: InventorySync, page: warehouse.Page, seen: int, real: Any = inventory.apply_page) -> None:
        calls.append(page.skus[0])
        if page.skus[0] == products[2].sku and calls.count(products[2].sku) == 1:
            raise TemporaryError("cut")
        real(run, page, seen)

    with patch.object(inventory, "apply_page", break_off):
        run = sync()

    assert calls.count(products[0].sku) == 2
    assert [stock_of(product) for product in products] == [15] * 4
    assert (run.status, run.changed, run.attempts) == (SyncStatus.SUCCEEDED, 4, 2)


def test_run_ends_failed_with_the_reason_when_retries_are_used_up(sandbox: Sandbox) -> None:
    sandbox.switch_on("warehouse_garbled", rate=1)

    run = sync()

    assert (run.status, run.error) == (SyncStatus.FAILED, "The warehouse's answer is not JSON, or not all of it.")
    assert run.attempts == 6


def test_run_says_why_it_waits_and_is_left_alone_for_as_long_as_it_was_asked_to(sandbox: Sandbox) -> None:
    sandbox.switch_on("warehouse_busy", count=1, seconds=500)
    run = claim(InventorySync.objects.open_one())

    with pytest.raises(TemporaryError):
        inventory.synchronise(run)

    run.refresh_from_db()
    assert run.due_at is not None
    assert "429" in run.error
    assert (run.due_at - timezone.now()).total_seconds() > 500


def test_sweep_queues_what_was_left_behind_and_ends_what_died_too_often(broker: Broker) -> None:
    run = InventorySync.objects.open_one()
    tasks.check_pending_orders()
    early = broker.messages()
    InventorySync.objects.update(due_at=timezone.now())
    tasks.check_pending_orders()
    late = broker.messages()
    InventorySync.objects.update(attempts=InventorySync.lease.max_attempts)
    tasks.check_pending_orders()

    assert (early, broker.messages()) == ([], [])
    assert late == [("default", "orders.tasks.sync_inventory", {"sync_id": run.pk})]
    assert InventorySync.objects.get().status == SyncStatus.FAILED


def test_page_of_levels_costs_few_statements(sandbox: Sandbox, django_assert_max_num_queries: Any) -> None:
    for _ in range(5):
        move(sandbox, stocked(sandbox), 1)
    run = claim(InventorySync.objects.open_one())
    [page] = warehouse.pages()

    with django_assert_max_num_queries(9):
        inventory.apply_page(run, page, 1)


# --- Beside orders, with real threads ---


@pytest.mark.django_db(transaction=True)
def test_no_unit_is_lost_when_orders_reserve_and_release_while_syncs_run(sandbox: Sandbox, customer: User) -> None:
    products = [stocked(sandbox, 100) for _ in range(3)]
    over, errors = Event(), list[BaseException]()

    def buy() -> None:
        basket = dict.fromkeys(products, 2)
        pk = services.place_order(customer, basket, card=Card.VISA, token=uuid4()).pk
        services.reserve([pk])
        if pk % 2:
            decline(pk)

    threads = [Thread(target=repeat, args=(act, over, errors)) for act in (buy, buy, sync_once, sync_once)]
    for thread in threads:
        thread.start()
    moved = 0
    try:
        for number in range(60):
            for product in products:
                move(sandbox, product, 7 if number % 2 else -4)
            # As if it were seen for the first time, in the middle of all this.
            Product.objects.filter(pk=products[0].pk).update(warehouse_units=None)
            moved += 7 if number % 2 else -4
    finally:
        over.set()
        for thread in threads:
            thread.join()
    for _ in range(2):
        sync()

    assert errors == []
    assert InventorySync.objects.filter(changed__gt=0).count() > 2
    for product in products:
        held = inventory.units_held([product.pk]).get(product.pk, 0)
        product.refresh_from_db()
        assert (held > 0, product.stock + held) == (True, 100 + moved)


def repeat(act: Callable[[], object], over: Event, errors: list[BaseException]) -> None:
    try:
        while not over.is_set():
            act()
    except Exception as error:
        errors.append(error)
    finally:
        connection.close()


@transaction.atomic
def decline(pk: int) -> None:
    if Order.objects.filter(pk=pk).move(Status.PAYMENT_FAILED):
        services.release([pk])


def sync_once() -> None:
    tasks.sync_inventory.apply(task_id=str(uuid4()))


# --- With real processes ---


def arrive(shop: Shop, product: Product, units: int) -> None:
    shop.sandbox("/warehouse/movements", {"movements": [{"sku": product.sku, "units": units}]})


def finished(run: InventorySync, status: str = SyncStatus.SUCCEEDED) -> Callable[[], bool]:
    return lambda: InventorySync.objects.filter(pk=run.pk, status=status).exists()


def ask_as(staff: User) -> InventorySync:
    """Press the button, as staff does."""
    client = Client()
    client.force_login(staff)
    answer = client.post("/warehouse/")
    assert answer.status_code == 302
    return InventorySync.objects.latest("pk")


def new_sku() -> str:
    return f"W-{uuid4().hex[:12]}"


@pytest.mark.proves("orders.tasks.sync_inventory", "worker")
@pytest.mark.django_db(transaction=True)
def test_button_has_a_worker_take_over_what_arrived(shop: Shop, staff: User) -> None:
    product = make_product(sku=new_sku(), stock=0)
    arrive(shop, product, 20)

    run = ask_as(staff)

    wait_for(finished(run), "the sync to finish")
    assert stock_of(product) == 20


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fault", ["warehouse_error", "warehouse_busy", "warehouse_cut", "warehouse_garbled"])
def test_worker_tries_again_when_the_warehouse_has_trouble(fault: str, shop: Shop, staff: User) -> None:
    product = make_product(sku=new_sku(), stock=0)
    arrive(shop, product, 20)
    shop.sandbox("/controls", {"fault": fault, "count": 1})

    run = ask_as(staff)

    wait_for(finished(run), "the sync to finish")
    run.refresh_from_db()
    assert (stock_of(product), run.attempts, run.error) == (20, 2, "")


@pytest.mark.django_db(transaction=True)
def test_run_goes_on_when_its_worker_is_killed_in_the_middle(shop: Shop, staff: User) -> None:
    product = make_product(sku=new_sku(), stock=0)
    arrive(shop, product, 20)
    shop.sandbox("/controls", {"fault": "warehouse_slow", "count": 1, "seconds": 5})
    run = ask_as(staff)
    wait_for(lambda: InventorySync.objects.get(pk=run.pk).attempts, "the worker to begin")

    shop.kill("worker")
    shop.start("worker")
    InventorySync.objects.filter(pk=run.pk).update(due_at=timezone.now())

    wait_for(finished(run), "another worker to finish the sync")
    run.refresh_from_db()
    assert (stock_of(product), run.attempts > 1) == (20, True)


@pytest.mark.django_db(transaction=True)
def test_sweep_does_what_the_button_s_lost_message_did_not(shop: Shop) -> None:
    product = make_product(sku=new_sku(), stock=0)
    arrive(shop, product, 20)

    run = InventorySync.objects.open_one()
    InventorySync.objects.update(due_at=timezone.now())

    wait_for(finished(run), "the sweep to find the run")
    assert stock_of(product) == 20


# --- Pages ---


def test_pages_show_staff_what_was_changed_and_what_differs(
    login: Callable[[User], Client], staff: User, known: Sandbox
) -> None:
    product = make_product()
    run = sync()
    client = login(staff)

    listed, shown = client.get("/warehouse/"), client.get(run.get_absolute_url())

    assert (run.get_absolute_url() in listed.text, product.sku in shown.text) == (True, True)
    assert "The warehouse does not know this SKU" in shown.text
    assert client.get(f"{run.get_absolute_url()}status/").headers["HX-Refresh"] == "true"


def test_page_follows_a_run_that_is_not_finished(login: Callable[[User], Client], staff: User) -> None:
    run = InventorySync.objects.open_one()

    answer = login(staff).get(f"{run.get_absolute_url()}status/")

    assert ("data-live" in answer.text, "HX-Refresh" in answer.headers) == (True, False)


def test_button_twice_is_one_run(login: Callable[[User], Client], staff: User, broker: Broker) -> None:
    client = login(staff)

    for _ in range(2):
        client.post("/warehouse/")

    assert InventorySync.objects.get().status == SyncStatus.QUEUED


def test_page_says_so_when_there_is_no_warehouse(
    login: Callable[[User], Client], staff: User, settings: Settings
) -> None:
    settings.WAREHOUSE_URL = ""

    answer = login(staff).post("/warehouse/")

    assert ("There is no warehouse" in answer.text, InventorySync.objects.exists()) == (True, False)


@pytest.mark.parametrize("path", ["", "1/", "1/status/"])
def test_pages_are_for_staff_only(path: str, login: Callable[[User], Client], customer: User, client: Client) -> None:
    assert login(customer).get(f"/warehouse/{path}").status_code == 403
    assert client.get(f"/warehouse/{path}").status_code == 302


def test_list_needs_as_many_queries_for_three_runs_as_for_one(
    login: Callable[[User], Client], staff: User, django_assert_num_queries: Any
) -> None:
    client = login(staff)
    counts = []
    for _ in range(3):
        InventorySync.objects.open_one()
        InventorySync.objects.close(SyncStatus.SUCCEEDED)
        with django_assert_num_queries(5) as captured:
            client.get("/warehouse/")
        counts.append(len(captured))

    assert len(set(counts)) == 1


def test_schedule_is_each_hour_of_a_working_day_in_the_shop_s_time() -> None:
    when = SCHEDULES["Sync inventory"].when

    assert (when.minute, when.hour, when.day_of_week) == ({0}, set(range(9, 18)), {1, 2, 3, 4, 5})  # type: ignore[union-attr]
    assert str(project.CELERY_TIMEZONE) == project.TIME_ZONE
