from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from reports import daily_sales


class Command(BaseCommand):
    help = "Count the daily sales again from the orders. It is safe while the shop runs, and to repeat after a crash."

    def add_arguments(self, parser: CommandParser) -> None:
        what = "the first day to count, such as 2026-01-31; all days without it"
        parser.add_argument("--since", type=date.fromisoformat, metavar="YYYY-MM-DD", help=what)

    def handle(self, *args: Any, since: date | None = None, **options: Any) -> None:
        if since and since > timezone.localdate():
            raise CommandError(f"{since} is in the future.")
        days = 0
        for first, last in daily_sales.rebuild(since):
            days += (last - first).days + 1
            self.stdout.write(f"{first} to {last} counted")
        self.stdout.write(self.style.SUCCESS(f"The sales of {days} days were counted again."))
