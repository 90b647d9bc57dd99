"""Money: what a currency can express, what the payment provider takes, and how a person reads it."""

from copy import copy
from decimal import ROUND_DOWN, Decimal
from functools import cache

from babel import Locale
from babel.numbers import NumberPattern
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db.models import Q
from django.db.models.functions import Round
from django.utils.translation import get_language, to_locale
from iso4217 import Currency

from durable.errors import PermanentError

# The most that the columns hold.
HIGHEST = Decimal("999999999.99")
# Digits behind the point (ISO 4217); one that was withdrawn, such as BGN, had two.
EXPONENTS = {currency.code: currency.exponent for currency in Currency}
# The columns have two. Of the currencies with three the provider takes amounts that end in zero only.
MAX_PLACES = 2
# Where the provider differs from ISO 4217 (docs.stripe.com/currencies): it charges ariary whole, and takes króna and
# Ugandan shillings, which are whole, in hundredths.
PLACES_AT_PROVIDER = {"MGA": 0}
UNIT_AT_PROVIDER = {"MGA": 0, "ISK": 2, "UGX": 2}
# It does not charge in these (docs.stripe.com/currencies#presentment-currencies); CLF and UYW have four places besides.
NOT_CHARGED = {
    *("BOV", "BTN", "CHE", "CHW", "CLF", "COU", "CUP", "ERN", "GHS", "IQD", "IRR", "KPW", "LYD", "MRU"),
    *("MXV", "SDG", "SSP", "STN", "SVC", "SYP", "TMT", "USN", "UYI", "UYW", "VED", "VES", "XAD", "ZWG"),
}
# Those without places, written down since constraints hold them; a test compares.
WITHOUT_FRACTION = (
    *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "MGA", "PYG"),
    *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
)
# The provider takes eight digits of the smallest unit whatever the card, and more of three currencies (docs.stripe.com/
# currencies#minimum-and-maximum-charge-amounts): of rupiah twelve, of which our columns hold eleven.
LARGEST_UNITS, LARGEST_UNITS_OF = 99_999_999, {"IDR": 99_999_999_999, "COP": 9_999_999_999, "INR": 999_999_999}
# The least that it charges, where the shop's account is in the same currency (docs.stripe.com/currencies#minimum-and-
# maximum-charge-amounts); for others it converts, and one unit is all that can be said.
SMALLEST = {
    **dict.fromkeys(
        ("AUD", "BRL", "CAD", "CHF", "COP", "EUR", "IDR", "ILS", "INR", "NZD", "PHP", "SGD", "USD", "ZAR"),
        Decimal("0.50"),
    ),
    "AED": Decimal(2),
    "BGN": Decimal(1),
    "CZK": Decimal(15),
    "DKK": Decimal("2.50"),
    "GBP": Decimal("0.30"),
    "HKD": Decimal(4),
    "HUF": Decimal(175),
    "JPY": Decimal(50),
    "KRW": Decimal(50),
    "MXN": Decimal(10),
    "MYR": Decimal(2),
    "NOK": Decimal(3),
    "PLN": Decimal(2),
    "RON": Decimal(2),
    "SEK": Decimal(3),
    "THB": Decimal(10),
}


class Inexpressible(PermanentError):
    """The currency has no coins for such an amount."""


def check_currency(currency: str) -> str:
    """Return the code that the shop is to count in; raises `ImproperlyConfigured` where it cannot."""
    # ISO 4217 also has gold, and codes for tests, which have no coins.
    if EXPONENTS.get(currency) is None:
        raise ImproperlyConfigured(f"CURRENCY is three letters of ISO 4217, such as EUR, not {currency!r}.")
    if currency in NOT_CHARGED:
        takes = "write one of docs.stripe.com/currencies, such as EUR"
        raise ImproperlyConfigured(f"CURRENCY is {currency}, in which the payment provider charges nothing: {takes}.")
    return currency


def places(currency: str) -> int:
    """Return how many digits behind the point an amount may have."""
    exponent = EXPONENTS.get(currency, MAX_PLACES) or 0
    return min(PLACES_AT_PROVIDER.get(currency, exponent), MAX_PLACES)


def is_expressible(amount: Decimal, currency: str) -> bool:
    return amount == round(amount, places(currency))


def whole_where_due(field: str) -> Q:
    """For a constraint: the field holds no fraction where its row's currency has none."""
    return ~Q(currency__in=WITHOUT_FRACTION) | Q(**{field: Round(field)})


def is_number(field: str) -> Q:
    """For a constraint: the field is none of what a column of PostgreSQL takes and no page can show (NaN)."""
    # It sorts above all numbers.
    return Q(**{f"{field}__lte": HIGHEST})


def check_price(price: Decimal) -> None:
    """Refuse a price that the shop's currency cannot express; a validator, for each door."""
    if not is_expressible(price, settings.CURRENCY):
        digits = places(settings.CURRENCY)
        most = f"at most {digits} digits" if digits else "no digits"
        raise ValidationError(f"{settings.CURRENCY} has {most} behind the point.", code="inexpressible")


# --- As the provider counts ---


def to_units(amount: Decimal, currency: str) -> int:
    """Return the amount in the provider's smallest unit. Raises `Inexpressible`, and never rounds."""
    if not is_expressible(amount, currency):
        raise Inexpressible(f"{amount} {currency} cannot be charged: there are no such coins.")
    return int(amount.scaleb(_unit(currency)))


def from_units(units: int, currency: str) -> Decimal:
    return Decimal(units).scaleb(-_unit(currency))


def largest(currency: str) -> Decimal:
    """Return the most that the provider charges at once."""
    most = from_units(LARGEST_UNITS_OF.get(currency, LARGEST_UNITS), currency)
    return most.quantize(Decimal(1).scaleb(-places(currency)), ROUND_DOWN)


def smallest(currency: str) -> Decimal:
    """Return the least that the provider charges at once."""
    return SMALLEST.get(currency, Decimal(1).scaleb(-places(currency)))


def _unit(currency: str) -> int:
    exponent = EXPONENTS.get(currency, MAX_PLACES)
    return UNIT_AT_PROVIDER.get(currency, MAX_PLACES if exponent is None else exponent)


# --- As a person reads it ---


def text(amount: Decimal, currency: str) -> str:
    """Write the amount with its currency, in the language of the page or mail: €1,250.00."""
    return _write(amount, currency, "currency")


def number(amount: Decimal, currency: str) -> str:
    """Write the amount alone, beside which the currency stands."""
    return _write(amount, currency, "decimal")


def _write(amount: Decimal, currency: str, style: str) -> str:
    # What should not be, such as a price from before the shop's currency was another, is not rounded away.
    digits = places(currency) if is_expressible(amount, currency) else MAX_PLACES
    locale, pattern = _pattern(get_language() or settings.LANGUAGE_CODE, style, digits)
    return str(pattern.apply(amount, locale, currency=currency, currency_digits=False))


@cache
def _pattern(language: str, style: str, digits: int) -> tuple[Locale, NumberPattern]:
    """Return how the language writes numbers, but with so many digits: those of CLDR are not those of ISO 4217."""
    locale = Locale.parse(to_locale(language))
    pattern = copy(locale.currency_formats["standard"] if style == "currency" else locale.decimal_formats[None])
    pattern.frac_prec = (digits, digits)
    return locale, pattern
