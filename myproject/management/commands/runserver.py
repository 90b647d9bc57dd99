import os

from django.db import OperationalError
from whitenoise.runserver_nostatic.management.commands import runserver


class Command(runserver.Command):
    def check_migrations(self) -> None:
        """Report an unavailable database in one line instead of a thread's long traceback."""
        try:
            super().check_migrations()
        except OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            self.stderr.write(
                f"The database does not answer ({reason}). Use `make run`, which brings one, or set DATABASE_URL."
            )
            self.stderr.flush()
            os._exit(1)
