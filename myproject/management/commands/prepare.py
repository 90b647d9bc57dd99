from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

SANDBOX_SECONDS = 20.0


class Command(BaseCommand):
    help = "Migrate, make the schedules, and fill the shop where it is empty: what `manage.py run` does first of all."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        call_command("sync_schedules")
        call_command("seed_demo", wait=SANDBOX_SECONDS)
