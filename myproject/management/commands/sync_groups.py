from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from myproject.groups import make_groups


class Command(BaseCommand):
    help = "Make the ready-made groups of staff that are not there; those that are stay as the admin has edited them."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        for name in make_groups():
            self.stdout.write(f"create {name}")
