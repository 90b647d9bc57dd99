"""Which change of which row is news, said in the database: no path in the code can forget it.

The notification is part of the statement that changes the row: it costs no round trip, PostgreSQL delivers it when the
transaction commits, and one that is rolled back tells nothing. Equal ones of a transaction are one.
"""

from collections.abc import Sequence

from django.db.migrations import RunSQL


class Tell(RunSQL):
    """Tell the channels that `query` selects when rows of the table change; it reads them as `changed`.

    Migrations use this, so its SQL must never change.
    """

    def __init__(self, table: str, query: str, on: Sequence[str] = ("INSERT", "UPDATE")) -> None:
        name = f"live_{table}"
        function = (
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"PERFORM pg_notify('live', channel) FROM ({query}) AS news (channel); RETURN NULL; END $$"
        )
        triggers = [
            f"CREATE TRIGGER {name}_{event.lower()} AFTER {event} ON {table} "
            f"REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
            for event in on
        ]
        dropped = [f"DROP TRIGGER {name}_{event.lower()} ON {table}" for event in on]
        super().__init__([function, *triggers], [*dropped, f"DROP FUNCTION {name}()"])
