"""The basket of a request: the person's own or, before they sign in, that of the browser's cookie."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from accounts.models import User
from myproject import texts

from . import money
from .models import Basket, BasketLine, Product

COOKIE = f"{settings.COOKIE_PREFIX}basket"
# In a request's META, as the server's own things are.
NEW, QUANTITIES = "shop.new_basket", "shop.basket"


class Line(NamedTuple):
    product: Product
    quantity: int

    @property
    def total(self) -> Decimal:
        return self.product.price * self.quantity

    @property
    def problem(self) -> str:
        """Why this line cannot be ordered now, for a person; empty if it can."""
        name = texts.isolated(self.product.name)
        if not self.product.is_active:
            return f"{name} is no longer sold. Please remove it."
        if not self.product.stock:
            return f"{name} is sold out. Please remove it."
        if self.quantity > self.product.stock:
            return f"Only {self.product.stock} of {name} left. Please take fewer."
        if not money.is_expressible(self.product.price, self.product.currency):
            return f"{name} has no price in {self.product.currency} yet. Please remove it."
        return ""


class Chosen:
    """Lines that somebody wants to order."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def total(self) -> Decimal:
        return sum((line.total for line in self), Decimal())

    @property
    def currency(self) -> str:
        return settings.CURRENCY

    @property
    def limit_problem(self) -> str:
        """Why all of it cannot be one order; empty if it can."""
        least, most = money.smallest(self.currency), money.largest(self.currency)
        if self.total > most:
            return f"One order comes to {money.text(most, self.currency)} at most. Please take fewer."
        if self.lines and self.total < least:
            return f"One order comes to {money.text(least, self.currency)} at least. Please take more."
        return ""

    @property
    def problems(self) -> list[str]:
        return [problem for problem in (*(line.problem for line in self), self.limit_problem) if problem]

    @property
    def fingerprint(self) -> str:
        """Return a digest of what the customer agrees to: products, quantities and prices."""
        said = [(line.product.sku, line.product.name, str(line.product.price), line.quantity) for line in self]
        return sha256(json.dumps([self.currency, sorted(said)]).encode()).hexdigest()

    def as_quantities(self) -> dict[Product, int]:
        return {line.product: line.quantity for line in self}


class Contents(Chosen):
    """A snapshot of a basket; None for a visitor who has never had one."""

    def __init__(self, row: Basket | None) -> None:
        self.row = row
        rows = BasketLine.objects.filter(basket=row).select_related("product").order_by("product__name", "pk")
        super().__init__([Line(line.product, line.quantity) for line in rows] if row else [])

    def put(self, product: Product, quantity: int) -> None:
        """Set the quantity in the locked basket; zero removes the product."""
        if self.row:
            self.row.put(product, quantity)

    def clear(self) -> None:
        """Take out what was read."""
        BasketLine.objects.filter(basket=self.row).delete()

    def quantity_of(self, product: Product) -> int:
        return self.as_quantities().get(product, 0)


def read(request: HttpRequest) -> Contents:
    """Return the basket's contents for display; makes two queries."""
    if "basket" in request.session:
        with transaction.atomic():
            return hold(request)
    owner = _owner(request)
    return Contents(Basket.objects.filter(**owner).first() if owner else None)


def hold(request: HttpRequest) -> Contents:
    """Return the basket's contents, locked until the transaction ends."""
    request.META.pop(QUANTITIES, None)
    row = Basket.objects.hold(**_owner(request) or {"visitor": name_visitor(request)})
    _take_over_session(request, row)
    return Contents(row)


def _take_over_session(request: HttpRequest, row: Basket) -> None:
    """Move a basket of the previous release from the session."""
    for pk, quantity in request.session.pop("basket", {}).items():
        for product in Product.objects.filter(pk=pk).exclude(pk__in=row.lines.values("product")):
            row.put(product, quantity)


@receiver(user_logged_in)
def take_along(request: HttpRequest, user: User, **kwargs: Any) -> None:
    """Merge the visitor's basket into the person's own."""
    with transaction.atomic():
        visitors = Basket.objects.select_for_update().filter(visitor__isnull=False, visitor=_visitor(request))
        for row in visitors:
            own = Contents(Basket.objects.hold(person=user))
            for product, quantity in Contents(row).as_quantities().items():
                own.put(product, quantity + own.quantity_of(product))
            row.delete()


def quantities(request: HttpRequest) -> dict[int, int]:
    """Return how many of each product are in the basket, by primary key; the first call in a request makes a query."""
    if QUANTITIES not in request.META:
        owner = {f"basket__{name}": value for name, value in _owner(request).items()}
        lines = BasketLine.objects.filter(**owner).values_list("product_id", "quantity") if owner else []
        request.META[QUANTITIES] = dict(lines)
    return cast(dict[int, int], request.META[QUANTITIES])


def count(request: HttpRequest) -> dict[str, Any]:
    """Template context of every page: the number of items in the basket, queried when it is shown."""
    return {"basket_count": lambda: sum(quantities(request).values())}


# --- Whose it is ---


def _owner(request: HttpRequest) -> dict[str, Any]:
    """Return the column that names the owner; empty for who has come without a cookie."""
    # An error page may be rendered before the user is known.
    user = getattr(request, "user", None)
    if user and user.is_authenticated:
        return {"person": user}
    visitor = _visitor(request)
    return {"visitor": visitor} if visitor else {}


def _visitor(request: HttpRequest) -> UUID | None:
    try:
        return UUID(request.COOKIES[COOKIE])
    except (KeyError, ValueError):
        return None


def name_visitor(request: HttpRequest) -> UUID | None:
    """Name the browser for its basket.

    Call it where products can be added, so that concurrent requests share one name.
    """
    if not request.user.is_authenticated and not _visitor(request):
        request.COOKIES[COOKIE] = str(uuid4())
        request.META[NEW] = request.COOKIES[COOKIE]
    return _visitor(request)


def remember_visitor(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Middleware: send the browser the name that it was given."""

    def remembered(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if name := request.META.get(NEW):
            response.set_cookie(
                COOKIE,
                name,
                max_age=settings.SESSION_COOKIE_AGE,
                secure=settings.SESSION_COOKIE_SECURE,
                httponly=True,
                samesite="Lax",
            )
        return response

    return remembered
