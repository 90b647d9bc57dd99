"""Taking products in: the row of the import, its tasks, and what orders do meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from accounts.models import Notification, User
from durable.leases import LeaseLost
from orders import import_services, imports, services, tasks
from orders.models import ImportStatus, OrderItem, Product, ProductImport, RejectedRow, StockSeen
from tests.broker import Broker
from tests.factories import claim, make_import, make_product, make_user, place_order
from tests.shop import is_somebody_waiting, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

HEADER = "name,sku,price,stock,category\n"


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


def rows(count: int, first: int = 1) -> str:
    return HEADER + "".join(f"Lamp {n},N-{n},{n}.50,{n % 9},Lighting\n" for n in range(first, first + count))


def run(row: ProductImport, task_id: str = "task-1") -> ProductImport:
    """Run the task as a worker does; return the row as it stands then."""
    tasks.import_products.apply(kwargs={"import_id": str(row.pk)}, task_id=task_id)
    row.refresh_from_db()
    return row


def counts(row: ProductImport) -> tuple[int, int, int]:
    return row.created_count, row.updated_count, row.rejected_count


def files() -> list[str]:
    return default_storage.listdir("imports")[1]


# --- What is written ---


def test_import_creates_and_updates_by_sku_and_rejects_the_rest(broker: Broker) -> None:
    old = make_product(sku="A-1", name="Old", price=1, stock=1, description="Stays.", is_active=False)
    row = make_import(HEADER + "Lamp,A-1,12.50,7,Lighting\nShade,B-1,3,0,Paper\nBad,C-1,-1,1,X\n")

    run(row)

    old.refresh_from_db()
    new = Product.objects.get(sku="B-1")
    assert (row.status, row.rows_total, row.rows_done, counts(row)) == (ImportStatus.DONE, 3, 3, (1, 1, 1))
    assert (old.name, old.price, old.stock, old.category) == ("Lamp", Decimal("12.50"), 7, "Lighting")
    assert (old.description, old.is_active, old.slug) == ("Stays.", False, "old-a-1")
    assert (new.slug, new.stock, new.is_active, new.description) == ("shade-b-1", 0, True, "")
    assert list(row.rejected_rows.values_list("line", "reason", "raw")) == [
        (4, "price is negative", "Bad | C-1 | -1 | 1 | X")
    ]


def test_import_writes_the_description_where_the_file_has_one() -> None:
    old = make_product(sku="A-1", description="Old")

    run(make_import("sku;name;category;price;stock;description\nA-1;Lamp;X;1;1;New\n"))

    old.refresh_from_db()
    assert old.description == "New"


def test_import_writes_in_chunks_what_one_chunk_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_services, "CHUNK", 4)
    monkeypatch.setattr(import_services, "KEPT", 2)
    row = make_import(rows(9) + "Bad,,1,1,X\n" * 4)

    run(row)

    assert (row.rows_done, counts(row)) == (13, (9, 0, 4))
    assert (Product.objects.count(), list(row.rejected_rows.values_list("line", flat=True))) == (9, [11, 12])


def test_new_products_have_slugs_of_their_own() -> None:
    make_product(name="Lamp", sku="A 1")
    text = f"Lamp,A-1,1,1,X\nLamp,A_1,1,1,X\n漢字,漢,1,1,X\n{'L' * 80},{'S' * 20},1,1,X\n"

    row = run(make_import(HEADER + text))

    slugs = dict(Product.objects.values_list("sku", "slug"))
    assert counts(row) == (4, 0, 0)
    assert (len(set(slugs.values())), slugs["A 1"], len(slugs["S" * 20])) == (5, "lamp-a-1", 80)
    assert all(slugs.values())


@pytest.mark.parametrize(
    ("ours", "theirs", "is_same"),
    [
        ("ä-1", "Ä-1", True),
        ("ạ-1", "Ạ-1", True),
        ("ς-1", "Σ-1", True),
        ("a\u0308-1", "Ä-1", True),
        ("straße", "STRASSE", False),
        ("ﬁ-1", "FI-1", False),
        ("i-1", "İ-1", False),
    ],
)
def test_import_knows_a_sku_by_the_rule_of_the_database(ours: str, theirs: str, is_same: bool) -> None:
    make_product(sku=ours)

    row = run(make_import(HEADER + f"Lamp,{theirs},1,1,X\n"))

    assert (row.status, row.created_count, row.updated_count) == (ImportStatus.DONE, not is_same, is_same)
    assert Product.objects.with_skus([theirs]).count() == 1


@pytest.mark.parametrize("before", [2**31 - 1, 2**40])
def test_import_adds_to_what_earlier_imports_have_added_however_much_that_is(before: int) -> None:
    make_product(sku="A-1", stock=3, imported=before)

    row = run(make_import(HEADER + "Lamp,A-1,1,10,X\n"))

    product = Product.objects.get()
    assert (row.status, product.stock, product.imported) == (ImportStatus.DONE, 10, before + 7)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"name,sku\nLamp,A-1\n", HEADER.encode() + b"L\xe4mp,A-1,1,1,X\n"]
)
def test_import_writes_nothing_when_the_file_is_refused(data: bytes, broker: Broker) -> None:
    row = make_import(data)

    run(row)

    assert (row.status, row.error != "", row.rows_done) == (ImportStatus.FAILED, True, 0)
    assert (Product.objects.count(), RejectedRow.objects.count()) == (0, 0)
    assert Notification.objects.get().message == row.error


def test_import_writes_nothing_when_the_last_line_is_not_utf8() -> None:
    row = run(make_import(rows(3000).encode() + b"\xff"))

    assert row.error.startswith("Line 3002 is not UTF-8: the byte 0xFF")
    assert not Product.objects.exists()


# --- Stock and orders ---


def reserve(order: Any) -> None:
    services.reserve([order.pk])


@pytest.mark.parametrize("after", ["reserved", "failed", "refunded"])
def test_import_keeps_what_orders_did_since_the_upload(after: str) -> None:
    product = make_product(sku="A-1", stock=10)
    before, since = (place_order(product=product, quantity=quantity) for quantity in (2, 3))
    reserve(before)
    row = make_import(HEADER + "Lamp,A-1,1,50,X\n")

    reserve(since)
    if after == "failed":
        services.release(services.fail(since.payments.get(), "Declined"))
    elif after == "refunded":
        services.end_refund(before.payments.get(), "ch", "re")
    run(row)

    product.refresh_from_db()
    assert product.stock == {"reserved": 47, "failed": 50, "refunded": 49}[after]


def test_import_keeps_what_the_warehouse_lost_since_the_upload() -> None:
    product = make_product(sku="A-1", stock=10, warehouse_units=10)
    row = make_import(HEADER + "Lamp,A-1,1,10,X\n")

    Product.objects.apply_levels({product.pk: (-7, 3)})
    run(row)

    product.refresh_from_db()
    assert (product.stock, product.warehouse_units) == (3, 3)


def test_import_keeps_what_staff_has_counted_in_since_the_upload() -> None:
    product = make_product(sku="A-1", stock=10)
    row = make_import(HEADER + "Lamp,A-1,1,50,X\n")

    Product.objects.filter(pk=product.pk).adjust_stock(5)
    run(row)

    product.refresh_from_db()
    assert product.stock == 55


def test_two_uploads_of_one_file_count_once() -> None:
    product = make_product(sku="A-1", stock=10)
    first, second = (make_import(HEADER + "Lamp,A-1,1,50,X\nNew,B-1,1,5,X\n") for _ in range(2))
    run(first)
    Product.objects.adjust_stock(-2)

    run(second)

    assert (counts(second), second.status) == ((0, 2, 0), ImportStatus.DONE)
    assert dict(Product.objects.values_list("sku", "stock")) == {product.sku: 48, "B-1": 3}


def test_import_refuses_to_take_away_more_than_is_left_with_both_numbers() -> None:
    product = make_product(sku="A-1", stock=10)
    order = place_order(product=product, quantity=3)
    row = make_import(HEADER + "Lamp,A-1,1,2,X\n")
    reserve(order)

    run(row)

    product.refresh_from_db()
    assert (product.stock, counts(row)) == (7, (0, 0, 1))
    assert row.rejected_rows.get().reason == (
        "stock 2 was not taken over: the upload found 10, and of those only 7 are left"
    )


def test_import_leaves_the_stock_of_a_product_alone_that_was_added_after_the_upload() -> None:
    row = make_import(HEADER + "Lamp,A-1,1,2,X\n")
    product = make_product(sku="A-1", stock=9)

    run(row)

    product.refresh_from_db()
    assert product.stock == 9
    assert row.rejected_rows.get().reason.endswith("the product was added after the upload and has 9")


@pytest.mark.parametrize(
    ("cell", "seen", "stock", "rejected"), [(10, 10, 8, 0), (15, 8, 15, 0), (8, 10, 8, 0), (15, 10, 8, 1)]
)
def test_file_that_says_what_was_seen_changes_only_what_was_edited(
    cell: int, seen: int, stock: int, rejected: int
) -> None:
    product = make_product(sku="A-1", stock=8)

    row = run(make_import(f"sku,name,category,price,stock,stock_seen\nA-1,Lamp,X,1,{cell},{seen}\n"))

    product.refresh_from_db()
    assert (product.stock, row.rejected_count) == (stock, rejected)


@pytest.mark.django_db(transaction=True)
def test_import_keeps_a_reservation_that_was_committing_at_the_moment_of_the_upload() -> None:
    product = make_product(sku="A-1", stock=10)
    slow, fast = (place_order(product=other, quantity=2) for other in (product, make_product(stock=10)))
    uploaded = list[ProductImport]()

    def upload() -> None:
        reserve(fast)
        uploaded.append(make_import(HEADER + "Lamp,A-1,1,10,X\n"))

    with transaction.atomic():
        reserve(slow)
        in_thread(upload).join()
    run(uploaded[0])

    product.refresh_from_db()
    assert product.stock == 8


def test_stock_that_was_seen_is_forgotten_when_the_import_has_ended(broker: Broker) -> None:
    make_product()
    done, failed = make_import(rows(2)), make_import(b"")
    noted = StockSeen.objects.count()

    run(done)
    run(failed)

    assert (noted, StockSeen.objects.count()) == (2, 0)


@pytest.mark.django_db(transaction=True)
def test_import_waits_for_a_reservation_and_counts_it() -> None:
    product = make_product(sku="A-1", stock=10)
    order = place_order(product=product, quantity=3)
    row = make_import(HEADER + "Lamp,A-1,1,50,X\n")

    with transaction.atomic():
        reserve(order)
        importing = in_thread(lambda: run(row))
        wait_for_lock()
    importing.join()

    product.refresh_from_db()
    assert product.stock == 47


@pytest.mark.django_db(transaction=True)
def test_import_locks_products_in_the_order_of_their_keys() -> None:
    first, second = make_product(sku="A-1"), make_product(sku="B-1")
    # Its row now lies behind the other's, where a scan without an order finds it last.
    Product.objects.filter(pk=first.pk).update(stock=11)
    row = make_import(HEADER + "Shade,B-1,1,5,X\nLamp,A-1,1,5,X\n")

    with transaction.atomic():
        Product.objects.select_for_update().get(pk=first.pk)
        importing = in_thread(lambda: run(row))
        wait_for_lock()
        free = list(Product.objects.select_for_update(skip_locked=True).filter(pk=second.pk))
    importing.join()

    assert free == [second]


@pytest.mark.django_db(transaction=True)
def test_import_adds_new_products_in_the_order_of_their_skus() -> None:
    row = make_import(HEADER + "Shade,B-1,1,10,X\nLamp,A-1,1,10,X\n")

    with transaction.atomic():
        make_product(sku="A-1")
        importing = in_thread(lambda: run(row))
        wait_for_lock()
        with connection.cursor() as cursor:
            # Before the server itself notices a deadlock, and ends the import for it.
            cursor.execute("SET LOCAL lock_timeout = '300ms'")
        # It would wait for the import, and the import for this, had the import begun with the other one.
        with suppress(OperationalError), transaction.atomic():
            make_product(sku="B-1")
    importing.join()

    row.refresh_from_db()
    assert (row.status, counts(row)) == (ImportStatus.DONE, (0, 2, 0))


@pytest.mark.django_db(transaction=True)
def test_order_is_placed_while_an_import_holds_the_product() -> None:
    product = make_product(sku="A-1", stock=10)
    row = make_import(HEADER + "Lamp,A-1,1,50,X\n")

    with transaction.atomic():
        held = claim(row, "task-1", status="running")
        held.mark_checked(1)
        import_services.import_chunk(held, list(imports.read(row.file)))
        placing = in_thread(lambda: place_order(product=product))
        placing.join(20)

    assert not placing.is_alive()
    assert OrderItem.objects.filter(product=product).count() == 1


def in_thread(work: Callable[[], object]) -> threading.Thread:
    def closing() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=closing)
    thread.start()
    return thread


def wait_for_lock() -> None:
    wait_for(is_somebody_waiting, "the import to wait for the reservation")


# --- Twice, and half-way ---


@pytest.mark.proves("orders.tasks.import_products", "twice", page="orders:import-detail")
def test_import_products_twice_is_once(broker: Broker) -> None:
    row = make_import(rows(5) + "Bad,,1,1,X\n")

    for number in range(2):
        run(row, f"task-{number}")

    assert (Product.objects.count(), RejectedRow.objects.count(), counts(row)) == (5, 1, (5, 0, 1))
    assert Notification.objects.count() == 1
    assert [name for _, name, _ in broker.messages()] == ["accounts.tasks.send_notification_email"]


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """An import that breaks after two chunks of two rows, once; the list counts the chunks."""
    monkeypatch.setattr(import_services, "CHUNK", 2)
    chunks: list[int] = []
    upsert = import_services.upsert

    def breaking(*args: Any) -> int:
        chunks.append(len(chunks))
        if len(chunks) == 3:
            upsert(*args)
            raise OperationalError("the connection is closed")
        return upsert(*args)

    with patch.object(import_services, "upsert", breaking):
        yield chunks


def test_import_goes_on_where_it_broke_off(breaks: list[int], broker: Broker) -> None:
    row = make_import(rows(7))
    seen = []
    with patch.object(tasks.import_products, "retry", side_effect=RuntimeError):
        run(row)
    seen.append((row.status, row.rows_done, Product.objects.count()))

    run(row)

    assert seen == [(ImportStatus.RUNNING, 4, 4)]
    assert (row.status, counts(row), Product.objects.count(), len(breaks)) == (ImportStatus.DONE, (7, 0, 0), 7, 5)


def test_import_is_tried_again_when_the_database_went_away(breaks: list[int], broker: Broker) -> None:
    row = run(make_import(rows(7)))

    assert (row.status, row.attempts, counts(row)) == (ImportStatus.DONE, 2, (7, 0, 0))


def test_import_leaves_it_to_the_task_that_holds_it(broker: Broker) -> None:
    row = make_import(rows(2))
    claim(row, "another", status="running")

    run(row)

    assert (row.status, row.claimed_by.split("/")[0], Product.objects.count()) == (ImportStatus.RUNNING, "another", 0)


def test_worker_that_was_overtaken_writes_nothing_more(broker: Broker) -> None:
    row = make_import(rows(2))
    slow = claim(row, "slow", status="running")
    ProductImport.objects.update(due_at=timezone.now())
    run(ProductImport.objects.get(), "fast")
    Product.objects.update(stock=99)

    ended = import_services.import_file(slow)

    assert (ended, Notification.objects.count()) == (False, 1)
    assert set(Product.objects.values_list("stock", flat=True)) == {99}


def test_copy_of_the_message_does_no_chunk_twice(broker: Broker) -> None:
    row = make_import(rows(2) + "Bad,,1,1,X\n")
    first, copy = (claim(row, "same", status="running") for _ in range(2))
    import_services.import_file(copy)

    ended = import_services.import_file(first)

    row.refresh_from_db()
    assert (ended, counts(row), Notification.objects.count()) == (False, (2, 0, 1), 1)


def test_copy_of_the_message_in_the_middle_of_the_work_writes_no_chunk_again() -> None:
    row = make_import(rows(2))
    chunk = list(imports.read(row.file))
    first = claim(row, "same", status="running")
    first.mark_checked(4)
    copy = claim(row, "same", status="running")
    import_services.import_chunk(copy, chunk)

    with pytest.raises(LeaseLost):
        import_services.import_chunk(first, chunk)

    assert counts(ProductImport.objects.get()) == (2, 0, 0)


# --- How it ended ---


def fail(row: ProductImport, task_id: str = "task-1") -> None:
    """Deliver the callback that Celery queues for a task that has failed."""
    tasks.handle_import_failure.push_request(parent_id=task_id)
    try:
        tasks.handle_import_failure.run(import_id=str(row.pk))
    finally:
        tasks.handle_import_failure.pop_request()
    row.refresh_from_db()


def test_person_is_told_that_the_import_is_done(broker: Broker) -> None:
    row = run(make_import(rows(2) + "Bad,,1,1,X\n", original_name="lamps.csv"))

    notice = Notification.objects.get()
    assert (notice.person, notice.url) == (row.requested_by, row.get_absolute_url())
    assert (notice.subject, notice.message) == ("Your import of lamps.csv is done", "2 new, 0 updated, 1 rejected.")
    assert broker.messages() == [("mail", "accounts.tasks.send_notification_email", {"user_id": row.requested_by_id})]


@pytest.mark.proves("orders.tasks.handle_import_failure", "twice", page="orders:import-detail")
def test_handle_import_failure_twice_tells_once(broker: Broker) -> None:
    row = make_import(rows(2))
    claim(row, "task-1", status="running")

    for _ in range(2):
        fail(row)

    assert (row.status, row.error, row.due_at) == (ImportStatus.FAILED, import_services.BROKEN, None)
    assert Notification.objects.get().subject == f"Your import of {row.original_name} has failed"
    assert len(broker.messages()) == 1


def test_handle_import_failure_leaves_an_import_that_another_task_goes_on_with(broker: Broker) -> None:
    row = make_import(rows(2))
    claim(row, "task-2", status="running")

    fail(row, "task-1")

    assert (row.status, Notification.objects.count()) == (ImportStatus.RUNNING, 0)


@pytest.mark.parametrize(("attempts", "status"), [(5, ImportStatus.RUNNING), (6, ImportStatus.FAILED)])
def test_check_unfinished_imports_gives_up_after_six_attempts_and_tells(
    attempts: int, status: str, broker: Broker
) -> None:
    row = make_import(rows(2), status=ImportStatus.RUNNING, attempts=attempts, claimed_by="dead")

    tasks.check_unfinished_imports()

    row.refresh_from_db()
    assert (row.status, Notification.objects.count()) == (status, int(status == ImportStatus.FAILED))
    assert [name for _, name, _ in broker.messages()] == (
        ["accounts.tasks.send_notification_email"] if attempts == 6 else ["orders.tasks.import_products"]
    )


def test_sweep_and_late_callback_tell_once(broker: Broker) -> None:
    row = make_import(rows(2), status=ImportStatus.RUNNING, attempts=6, claimed_by="task-1")

    for _ in range(2):
        tasks.check_unfinished_imports()
        fail(row)

    assert Notification.objects.count() == 1


@pytest.mark.proves("orders.tasks.check_unfinished_imports", "twice")
def test_check_unfinished_imports_twice_imports_once(broker: Broker) -> None:
    row = make_import(rows(2))
    make_import(rows(2), due_at=timezone.now() + ProductImport.lease.lasts())
    for _ in range(2):
        tasks.check_unfinished_imports()

    for _, _, kwargs in broker.messages():
        tasks.import_products.apply(kwargs=kwargs)

    row.refresh_from_db()
    assert counts(row) == (2, 0, 0)
    assert Notification.objects.count() == 1


# --- Starting ---


def upload(person: User, token: Any, data: bytes = b"x") -> ProductImport:
    return import_services.start_import(person, SimpleUploadedFile("lamps.csv", data), token)


def test_start_import_twice_with_one_token_is_one_import() -> None:
    person, token = make_user(), uuid4()

    first, second = upload(person, token, b"one"), upload(person, token, b"one")

    assert (first.pk, files()) == (second.pk, [f"{first.pk}.csv"])
    assert first.file.open().read() == b"one"


def test_start_import_of_another_file_with_the_same_token_is_another_import() -> None:
    person, token = make_user(), uuid4()

    imports = [upload(person, token, data) for data in (b"one", b"two", b"one")]

    assert [row.file.open().read() for row in imports] == [b"one", b"two", b"one"]
    assert (imports[0], ProductImport.objects.count()) == (imports[2], 2)


def test_start_import_leaves_no_file_when_it_fails() -> None:
    broken = patch.object(ProductImport.objects, "get_or_create", side_effect=OperationalError)

    with broken, pytest.raises(OperationalError):
        upload(make_user(), uuid4())

    assert files() == []


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("import_status_known", {"status": "lost", "due_at": None}),
        ("import_done_has_all_rows", {"status": ImportStatus.DONE, "due_at": None, "rows_total": 1}),
        ("import_counts_each_row_once", {"rows_done": 1}),
        ("import_due_while_open", {"due_at": None}),
        ("import_due_while_open", {"status": ImportStatus.FAILED}),
    ],
)
def test_database_refuses_what_must_never_be(constraint: str, fields: dict[str, Any]) -> None:
    make_import("")

    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        ProductImport.objects.update(**fields)
