"""Each currency that the provider takes, counted as the provider counts it and shown as its people write it."""

from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import call_command
from django.db import IntegrityError
from django.test import Client
from django.utils import translation
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from accounts.models import User
from orders import import_services, imports, money
from orders.models import Product, Status
from reports import daily_sales
from reports.models import DailySales, SalesCount
from sandbox import currencies
from tests.factories import make_import, make_product, make_user, place_order, put

ALL = sorted(code.upper() for code in currencies.ALL)


@pytest.mark.parametrize("currency", ALL)
@given(data=st.data())
@examples(max_examples=20)
def test_what_the_shop_can_express_the_provider_reads_as_the_same_amount(currency: str, data: st.DataObject) -> None:
    digits = money.places(currency)
    amount = data.draw(st.decimals(min_value=1, max_value=money.largest(currency), places=digits, allow_nan=False))

    units = money.to_units(amount, currency)

    # The provider's own words for the number, from code that knows nothing of ours.
    assert Decimal(currencies.money(units, currency.lower()).split()[0].replace(",", "")) == amount
    assert units % currencies.step(currency.lower()) == 0
    assert units <= currencies.largest(currency.lower())
    assert money.from_units(units, currency) == amount


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        *[("0.29", "EUR", 29), ("19.99", "EUR", 1999), ("1250.00", "USD", 125000), ("5.25", "ALL", 525)],
        *[("500.00", "JPY", 500), ("5000.00", "XOF", 5000), ("5000", "MGA", 5000)],
        # Whole, in hundredths all the same.
        *[("5.00", "ISK", 500), ("5.00", "UGX", 500)],
        *[("5.12", "KWD", 5120), ("5.12", "TND", 5120)],
    ],
)
def test_amount_is_told_to_the_provider_in_its_units(amount: str, currency: str, units: int) -> None:
    assert money.to_units(Decimal(amount), currency) == units


@pytest.mark.parametrize(
    ("amount", "currency"), [("12.50", "JPY"), ("0.01", "ISK"), ("1.255", "KWD"), ("0.001", "EUR")]
)
def test_amount_without_coins_is_never_rounded(amount: str, currency: str) -> None:
    with pytest.raises(money.Inexpressible, match="no such coins"):
        money.to_units(Decimal(amount), currency)


def test_constraints_name_each_currency_without_fractions() -> None:
    without = {code for code, exponent in money.EXPONENTS.items() if exponent is not None and not money.places(code)}

    assert without == set(money.WITHOUT_FRACTION)


# --- Which the shop starts with ---


@pytest.mark.parametrize("currency", sorted(money.EXPONENTS))
def test_shop_starts_with_what_its_columns_hold_and_the_provider_charges(currency: str, settings: Settings) -> None:
    settings.CURRENCY = currency
    if currency.lower() not in currencies.ALL:
        with pytest.raises(ImproperlyConfigured, match=r"^CURRENCY is .*, such as EUR.*[.]$"):
            money.check_currency(currency)
        return

    # The least by which two amounts may differ at the provider.
    step = Decimal(currencies.step(currency.lower())).scaleb(-unit_of(currency)).normalize()

    assert money.check_currency(currency) == currency
    assert Product._meta.get_field("price").clean(step, None) == step
    assert money.to_units(step, currency) == currencies.step(currency.lower())


def unit_of(currency: str) -> int:
    """Return how many digits the provider's smallest unit stands behind the point."""
    code = currency.lower()
    return 0 if code in currencies.ZERO_DECIMAL else 3 if code in currencies.THREE_DECIMAL else 2


@pytest.mark.parametrize("code", ["", "eur", "EURO", "BGN", "XAU", "XXX"])
def test_shop_does_not_start_with_what_is_no_currency(code: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"three letters of ISO 4217, such as EUR, not '{code}'"):
        money.check_currency(code)


# --- Shown ---


@pytest.mark.parametrize(
    ("amount", "currency", "language", "shown"),
    [
        ("1250", "EUR", "en-gb", "€1,250.00"),
        ("1250", "EUR", "de", "1.250,00\xa0€"),
        ("5000", "XOF", "fr", "5\u202f000\xa0F\u202fCFA"),
        ("0.5", "USD", "en-us", "$0.50"),
        ("1250", "JPY", "ja", "￥1,250"),
        # CLDR would leave its hundredths out.
        ("5.25", "ALL", "en-gb", "ALL5.25"),
        ("1234567.5", "INR", "hi-in", "₹12,34,567.50"),
        ("-3", "EUR", "en-gb", "-€3.00"),
        # From before the shop's currency was another: wrong, and not hidden.
        ("12.50", "JPY", "ja", "￥12.50"),
    ],
)
def test_money_is_shown_as_the_reader_writes_it(amount: str, currency: str, language: str, shown: str) -> None:
    with translation.override(language):
        assert money.text(Decimal(amount), currency) == shown


@pytest.mark.django_db
@pytest.mark.parametrize(("currency", "shown"), [("JPY", "JP¥57"), ("USD", "US$57.00"), ("XOF", "F\u202fCFA57")])
def test_shop_of_another_currency_says_it_everywhere(
    currency: str, shown: str, client: Client, settings: Settings
) -> None:
    settings.CURRENCY = currency
    call_command("seed_demo")
    client.post("/basket/add/folding-harvest-basket-gar-008/", {"quantity": 1})
    client.force_login(make_user(is_staff=True))

    pages = [client.get(path) for path in ("/", "/products/folding-harvest-basket-gar-008/", "/dashboard/")]

    texts = [page.content.decode() for page in pages]
    assert [page.status_code for page in pages] == [200] * 3
    assert not [text for text in texts if "€" in text or "EUR" in text]
    assert shown in texts[1]


@pytest.mark.django_db
def test_price_of_many_units_passes_every_door(client: Client, staff: User, settings: Settings) -> None:
    """In dong a telephone costs thirty million: more digits than euros ever need."""
    settings.CURRENCY = "VND"
    upload = make_import("name,sku,price,stock,category\nPhone,P-1,99999999,3,Phones\n", requested_by=staff)
    import_services.run_import(upload.pk)
    client.force_login(staff)
    product = Product.objects.get()
    order = put(place_order(product=product, quantity=1), Status.COMPLETED)
    daily_sales.update()

    pages = [product.get_absolute_url(), f"/admin/orders/product/{product.pk}/change/", order.get_absolute_url()]

    assert [client.get(path).status_code for path in [*pages, "/dashboard/"]] == [200] * 4
    assert (product.price, order.total) == (Decimal(99_999_999), Decimal(99_999_999))
    assert DailySales.objects.get().revenue == 99_999_999


@pytest.mark.django_db
def test_sum_of_a_day_holds_more_than_any_one_order() -> None:
    day = {"day": "2026-11-29", "orders": 1, "units": 1, "refunded_orders": 0, "refunded_units": 0, "refunds": 0}

    DailySales.objects.create(revenue=Decimal("99999999.99") * 1_000_000, **day)

    assert DailySales.objects.get().revenue == Decimal("99999999990000.00")


# --- Refused at each door ---


def test_product_refuses_a_price_that_the_currency_cannot_express(settings: Settings) -> None:
    settings.CURRENCY = "JPY"
    product = Product(sku="A", name="Lamp", category="Light", price=Decimal("12.50"), slug="lamp")

    with pytest.raises(ValidationError, match="JPY has no digits behind the point"):
        product.full_clean(validate_unique=False, validate_constraints=False)


def test_import_refuses_a_price_that_the_currency_cannot_express(settings: Settings) -> None:
    settings.CURRENCY = "JPY"

    assert imports.parse_price("price", "12") == 12
    with pytest.raises(imports.Invalid, match="more digits behind the point than JPY"):
        imports.parse_price("price", "12.50")


@pytest.mark.django_db
def test_admin_refuses_a_price_that_the_currency_cannot_express(admin_client: Client, settings: Settings) -> None:
    settings.CURRENCY = "JPY"
    form: dict[str, Any] = {"sku": "A", "name": "Lamp", "category": "Light", "price": "12.50", "adjust_stock": "1"}

    answer = admin_client.post("/admin/orders/product/add/", form)

    assert "JPY has no digits behind the point" in answer.content.decode()
    assert not Product.objects.exists()


@pytest.mark.django_db
def test_order_and_payment_cannot_hold_a_fraction_of_a_whole_currency(settings: Settings) -> None:
    settings.CURRENCY = "JPY"

    with pytest.raises(IntegrityError, match="order_total_expressible"):
        place_order(product=make_product(price=Decimal("12.50")))


# --- Another currency, from one day on ---


@pytest.mark.django_db
def test_order_keeps_its_currency_and_sales_are_counted_again(settings: Settings) -> None:
    order = place_order()
    daily_sales.update()
    DailySales.objects.create(
        day="2026-01-01", orders=1, units=1, revenue=10, refunded_orders=0, refunded_units=0, refunds=0
    )

    settings.CURRENCY = "USD"
    order.refresh_from_db()

    assert (order.currency, place_order().currency) == ("EUR", "USD")
    assert SalesCount.freshness() is None
    daily_sales.update()
    assert SalesCount.freshness()
    assert not DailySales.objects.exists()
