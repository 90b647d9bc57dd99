from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from myproject.transport import certificates

# A hundred years.
LONGEST = 36_500


class Command(BaseCommand):
    help = "Make a key and a certificate to sign messages with, and say what to set."
    # It is what a check that fails asks for.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="is made when it is missing; nothing in it is overwritten")
        parser.add_argument("--days", type=int, default=365, help="how long the certificate is valid (365)")

    def handle(self, folder: Path, days: int, **options: Any) -> None:
        if not 1 <= days <= LONGEST:
            raise CommandError(f"A certificate is valid for a day at least, and for {LONGEST} at most.")
        try:
            paths = certificates.make(folder.resolve(), days)
        except OSError as error:
            raise CommandError(f"Nothing was overwritten: {error.filename}: {error.strerror}.") from None
        self.stderr.write(f"Valid for {days} days. Set these for web, workers, beat, Flower and your own shell:")
        for name, path in zip(certificates.SETTINGS, paths, strict=True):
            self.stdout.write(f"CELERY_{name.upper()}={path}")
