from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from durable.errors import PermanentError, TemporaryError
from myproject import demo

WORTH_A_BAR = 100_000
ORDERS = "how many orders the history has; more than 100,000 lock the shop's orders until all are written"


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


class Command(BaseCommand):
    help = (
        "Fill an empty shop with its catalogue, people to log in as, one of each group, and a history, by default of "
        "ninety days, which the sandbox is told as well; what is there stays."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--empty", action="store_true", help="without the history")
        parser.add_argument("--orders", type=positive, default=demo.Past.orders, help=ORDERS)
        parser.add_argument("--days", type=positive, default=demo.Past.days, help="over how many days before now")
        parser.add_argument("--wait", type=float, default=0, help="seconds until the sandbox must answer")

    def handle(self, *args: Any, empty: bool, orders: int, days: int, wait: float, **options: Any) -> None:
        for module in demo.modules():
            module.fill()
        if empty:
            return
        if not demo.world_answers(wait):
            self.stdout.write("The sandbox does not answer, so the shop has no history: start it, and try again.")
            return
        past = demo.Past(orders=orders, days=days, show=lambda done: self.show(done, orders))
        try:
            demo.tell(past, demo.remember_all(past))
        except (TemporaryError, PermanentError) as error:
            raise CommandError(f"The shop has its history, and the sandbox was not told: {error}") from error

    def show(self, done: int, orders: int) -> None:
        """Draw how far it is, where somebody looks and it takes longer than a moment."""
        if self.stdout.isatty() and orders > WORTH_A_BAR:
            bar = "█" * (40 * done // orders)
            self.stdout.write(
                f"\r{bar:░<40} {done:,} of {orders:,} orders",
                ending="\nMaking indexes and reports …\n" if done == orders else "",
            )
            self.stdout.flush()
