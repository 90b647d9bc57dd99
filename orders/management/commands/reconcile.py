from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from durable.errors import TemporaryError
from orders import payments, services, tasks


class Command(BaseCommand):
    help = "After a restore: ask the provider for all charges and refunds since the backup, and record missing ones."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("since", type=datetime.fromisoformat, help="when the backup was made, as 2026-11-28T03:00")

    def handle(self, *args: Any, since: datetime, **options: Any) -> None:
        try:
            self.reconcile(since)
        except TemporaryError as error:
            raise CommandError(f"{error} Run this again: nothing is recorded twice.") from error

    def reconcile(self, since: datetime) -> None:
        unknown = 0
        for notice in payments.moved_since(since if since.tzinfo else timezone.make_aware(since)):
            if services.find_payment(notice) is None:
                unknown += 1
                told = f"{notice.news.label}, {notice.amount} {notice.currency}, order {notice.order or 'unknown'}"
                self.stdout.write(f"{notice.provider_id}: {told}: there is no such payment here")
            for pk in services.record(notice):
                tasks.send_order_confirmation.delay_on_commit(order_id=pk)
        self.stdout.write(f"{unknown} without a payment here: refund them at the provider, or ask the customers.")
