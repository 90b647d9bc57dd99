"""When a stream ends before its time: its person has signed out, or may no longer what they might.

Said in the database, like the news: a stream holds neither the session nor the permissions that its page was made by.
"""

from typing import Any

from django.contrib.auth.signals import user_logged_out
from django.db import connection
from django.db.migrations import RunSQL
from django.dispatch import receiver

from .hub import END
from .tokens import channel_of


class End(RunSQL):
    """End the streams of the people whom `query` selects.

    It reads the rows that are deleted or updated as `former`, and as they are after an update as `changed`. Migrations
    use this, so its SQL must never change.
    """

    def __init__(self, table: str, query: str, on: str) -> None:
        name = f"live_end_{table}"
        rows = "OLD TABLE AS former" + (" NEW TABLE AS changed" if on == "UPDATE" else "")
        function = (
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"PERFORM pg_notify('live', 'end:' || person) FROM ({query}) AS gone (person); RETURN NULL; END $$"
        )
        trigger = (
            f"CREATE TRIGGER {name} AFTER {on} ON {table} "
            f"REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        )
        super().__init__([function, trigger], [f"DROP TRIGGER {name} ON {table}", f"DROP FUNCTION {name}()"])


@receiver(user_logged_out)
def end_streams(user: Any, **kwargs: Any) -> None:
    """End what the person listens to; their other pages ask again, and get new tokens."""
    if user is not None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify('live', %s)", [channel_of(END, user.pk)])
