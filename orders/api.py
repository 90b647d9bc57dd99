"""Orders and imports for scripts, by the rules of the pages."""

from datetime import datetime
from typing import Any, cast
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from ninja import Field, File, Header, Query, Router, Schema, UploadedFile
from ninja.responses import Status as Accepted
from structlog.contextvars import bind_contextvars

from accounts.models import User
from durable.errors import TemporaryError
from myproject.api.errors import Refused, not_valid, not_valid_form
from myproject.web.pages import staff_may

from . import basket as baskets
from . import import_services, services, tasks
from .forms import CardForm, ImportForm
from .models import Order, Product, ProductImport, sku_key

router = Router()

PER_PAGE = 50
# Different products of one order.
MOST_LINES = 100
FILE = File(...)
PAGE = Query(1, ge=1, le=100_000)
KEY = Header(..., alias="Idempotency-Key", description="A UUID of yours: the same request sent twice is done once.")


class NewLine(Schema):
    sku: str = Field(max_length=20)
    quantity: int = Field(ge=1, le=1_000_000)


class NewOrder(Schema):
    items: list[NewLine] = Field(min_length=1, max_length=MOST_LINES)
    card: str = Field(max_length=60)


class Line(Schema):
    sku: str = Field(alias="product.sku")
    name: str
    quantity: int
    price: str

    @staticmethod
    def resolve_price(line: Any) -> str:
        return str(line.price)


class OrderStatus(Schema):
    reference: str
    status: str
    reason: str
    total: str
    currency: str
    created_at: datetime
    completed_at: datetime | None
    url: str = Field(description="Where the status is.")

    @staticmethod
    def resolve_total(order: Order) -> str:
        return str(order.total)

    @staticmethod
    def resolve_url(order: Order) -> str:
        return reverse("api-1:order", args=[order.reference])


class OrderDetail(OrderStatus):
    items: list[Line]

    @staticmethod
    def resolve_items(order: Order) -> Any:
        return order.items.select_related("product").order_by("pk")


@router.post("orders/", response={202: OrderStatus}, tags=["Orders"], summary="Place an order")
def place(request: HttpRequest, response: HttpResponse, data: NewOrder, key: UUID = KEY) -> Any:
    """Accept an order and queue it; its status is at `url`. The same key returns the same order."""
    person = cast(User, request.user)
    with transaction.atomic():
        order = Order.objects.of(person).filter(token=key).first() or place_new(person, data, key)
        check_same(order, data.items)
    response["Location"] = OrderStatus.resolve_url(order)
    return Accepted(202, order)


def place_new(person: User, data: NewOrder, key: UUID) -> Order:
    form, wanted = CardForm({"card": data.card}), quantities(data.items)
    chosen = baskets.Chosen([baskets.Line(*line) for line in wanted.items()])
    if not form.is_valid():
        raise not_valid_form(form)
    if chosen.problems:
        raise Refused(" ".join(chosen.problems), code="cannot_be_ordered")
    order = services.place_order(person, wanted, form.cleaned_data["card"], key)
    bind_contextvars(order=order.reference)
    tasks.process_order.delay_on_commit(order_id=order.pk)
    return order


def quantities(lines: list[NewLine]) -> dict[Product, int]:
    """Find the products by their SKUs, in any case; refuse what is not on sale, and what is named twice."""
    found = {sku_key(product.sku): product for product in Product.objects.on_sale().with_skus([x.sku for x in lines])}
    wanted: dict[Product, int] = {}
    wrong: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        product = found.get(sku_key(line.sku))
        if product is None or product in wanted:
            said = "No product on sale has this SKU." if product is None else "This product is named twice."
            wrong[f"items.{number}.sku"] = [said]
        else:
            wanted[product] = line.quantity
    if wrong:
        raise not_valid(wrong)
    return wanted


def check_same(order: Order, lines: list[NewLine]) -> None:
    """Refuse a key that stands for another order."""
    placed = {sku_key(sku): count for sku, count in order.items.values_list("product__sku", "quantity")}
    if placed != {sku_key(line.sku): line.quantity for line in lines}:
        raise Refused("This key stands for another order.", code="key_reused", status=409)


class Orders(Schema):
    count: int
    results: list[OrderStatus]


@router.get("orders/", response=Orders, tags=["Orders"], summary="Your orders, newest first")
def own_orders(request: HttpRequest, page: int = PAGE) -> Any:
    orders = Order.objects.of(request.user).order_by("-created_at", "-pk")
    start = (page - 1) * PER_PAGE
    return {"count": orders.count(), "results": orders[start : start + PER_PAGE]}


@router.get("orders/{reference}/", response=OrderDetail, tags=["Orders"], url_name="order", summary="One order")
def order_detail(request: HttpRequest, reference: str) -> Any:
    return get_object_or_404(Order.objects.visible_to(request.user), reference=reference)


class ImportStatus(Schema):
    id: UUID
    status: str
    original_name: str
    rows_done: int
    rows_total: int | None
    created_count: int
    updated_count: int
    rejected_count: int
    error: str
    created_at: datetime
    finished_at: datetime | None
    url: str = Field(description="Where the status is.")

    @staticmethod
    def resolve_url(row: ProductImport) -> str:
        return reverse("api-1:import", args=[row.pk])


@router.post("imports/", response={202: ImportStatus}, tags=["Imports"], summary="Import products from a CSV file")
@staff_may("orders.view_productimport", post="orders.add_productimport")
def import_products(request: HttpRequest, response: HttpResponse, file: UploadedFile = FILE, key: UUID = KEY) -> Any:
    """Accept a file of products and queue it; its status is at `url`."""
    form = ImportForm({"token": key}, MultiValueDict({"file": [file]}))
    if not form.is_valid():
        raise not_valid_form(form)
    try:
        row = import_services.start_import(cast(User, request.user), **form.cleaned_data)
    except (OSError, TemporaryError) as error:
        raise Refused("The file could not be stored. Send it again later.", code="unavailable", status=503) from error
    tasks.import_products.apply_async_on_commit(kwargs={"import_id": str(row.pk)}, **tasks.import_options(row.pk))
    response["Location"] = ImportStatus.resolve_url(row)
    return Accepted(202, row)


@router.get("imports/{uuid:pk}/", response=ImportStatus, tags=["Imports"], url_name="import", summary="One import")
@staff_may("orders.view_productimport")
def import_detail(request: HttpRequest, pk: UUID) -> Any:
    return get_object_or_404(ProductImport, pk=pk)
