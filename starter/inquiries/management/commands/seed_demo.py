from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

PASSWORD = "lantern-loom"  # noqa: S105 # nosec B105 # it is printed for everybody to read


class Command(BaseCommand):
    help = "Make two people to log in as, where there are none yet: `make run` does."

    def handle(self, *args: Any, **options: Any) -> None:
        people: Any = get_user_model()._default_manager
        if not people.exists():
            people.create_user("customer", "customer@example.com", PASSWORD)
            people.create_superuser("staff", "staff@example.com", PASSWORD)
