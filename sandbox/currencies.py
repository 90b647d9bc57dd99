"""Stripe's currencies, and the number of digits of their amounts (docs.stripe.com/currencies)."""

from decimal import Decimal

# The presentment currencies.
_ALL = """
aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp cny cop
crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr isk jmd jod jpy
kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok
npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs tnd top
try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar zmw
"""
ALL = frozenset(_ALL.split())
ZERO_DECIMAL = {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"}
# Zero-decimal, but sent in hundredths for backwards compatibility.
WHOLE_IN_HUNDREDTHS = {"isk", "ugx"}
# Sent in thousandths; the last digit must be zero.
THREE_DECIMAL = {"bhd", "jod", "kwd", "omr", "tnd"}
# The largest amount: eight digits, of these more.
LARGEST = {"idr": 999_999_999_999, "cop": 9_999_999_999, "inr": 999_999_999}


def largest(currency: str) -> int:
    return LARGEST.get(currency, 99_999_999)


def step(currency: str) -> int:
    """Return the number that each amount must be a multiple of."""
    return 100 if currency in WHOLE_IN_HUNDREDTHS else 10 if currency in THREE_DECIMAL else 1


def money(amount: int, currency: str) -> str:
    """Format an amount given in the currency's smallest unit."""
    digits = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    shown = 0 if currency in WHOLE_IN_HUNDREDTHS else digits
    return f"{Decimal(amount).scaleb(-digits):,.{shown}f} {currency.upper()}"
