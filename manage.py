#!/usr/bin/env python
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line, load_command_class
from django.db import OperationalError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")
    try:
        if sys.argv[1:] == ["run"]:
            # It looks after processes, and without the apps it needs half the memory for that.
            load_command_class("myproject", "run").run_from_argv(sys.argv)
        else:
            execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except OperationalError as error:
        # One line instead of a page of traceback: the database is down far more often than broken.
        first_line = str(error).strip().splitlines()[0]
        sys.exit(f"The database does not answer ({first_line}). Start it with `make run`, or set DATABASE_URL.")


if __name__ == "__main__":
    main()
