"""When people buy: a weekly and a daily rhythm, and a shop that grows a little."""

from datetime import datetime, timedelta
from itertools import accumulate
from random import Random
from typing import NamedTuple

from django.utils import timezone

# From Monday to Sunday; from midnight to midnight.
DAYS = [0.9, 0.8, 0.85, 0.95, 1.1, 1.35, 1.5]
HOURS = [1, 0.5, 0.3, 0.2, 0.2, 0.4, 1, 2, 3, 4, 4, 5, 6, 5, 4, 4, 4, 5, 6, 8, 9, 8, 5, 2.5]
# The week in which a newspaper wrote about the shop, counted back, and the days on which the mail was on strike.
FAMOUS, QUIET = range(38, 45), range(20, 23)


class Hour(NamedTuple):
    """An hour, and the numbers of its orders: `before` excluded, `upto` included."""

    start: datetime
    before: int
    upto: int


def hours(until: datetime, days: int, orders: int) -> list[Hour]:
    """Spread the orders over the hours that have ended by then, always in the same way for the same hours."""
    first = until.replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    starts = [first + timedelta(hours=number) for number in range(days * 24)]
    weights = [weight(start, (until - start).days, days) for start in starts]
    shares = [0.0, *accumulate(weights)]
    numbers = [round(share / shares[-1] * orders) for share in shares]
    return [Hour(*hour) for hour in zip(starts, numbers, numbers[1:], strict=False)]


def weight(start: datetime, ago: int, days: int) -> float:
    local = timezone.localtime(start)
    growth = 1 + 0.5 * (1 - ago / days)
    chance = Random(local.toordinal()).uniform(0.75, 1.25)  # noqa: S311 # nosec B311 # no secret
    event = 2.2 if ago in FAMOUS else 0.35 if ago in QUIET else 1
    return DAYS[local.weekday()] * HOURS[local.hour] * growth * chance * event
