"""What docs/operations/backup.md says: a dump, an empty broker, and money that has moved since."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from myproject import embedded
from orders import payments, services, tasks
from orders.models import Order, Status
from tests.factories import place_order
from tests.running import sandbox

pytestmark = [pytest.mark.operations, pytest.mark.timeout(400)]


def program(name: str, *options: str | Path) -> None:
    connection.close()
    where = ["--host", str(embedded.socket_dir(settings.VAR_DIR)), "--username", "postgres"]
    command: list[str | Path] = [embedded.Postgres._binary(name), *where, *options]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture
def provider(settings: Any, transactional_db: None) -> Iterator[str]:
    with sandbox() as places:
        settings.STRIPE_API_BASE = places["STRIPE_API_BASE"]
        payments._client.cache_clear()
        yield settings.STRIPE_API_BASE
    payments._client.cache_clear()


def status(order: Order) -> str:
    return Order.objects.get(pk=order.pk).status


def complete(order: Order) -> None:
    tasks.process_order.apply(kwargs={"order_id": order.pk})
    assert status(order) == Status.COMPLETED


def test_restored_shop_charges_no_one_twice_and_learns_what_money_has_moved(
    provider: str, tmp_path: Path, capsys: Any
) -> None:
    name, dump, since = connection.settings_dict["NAME"], tmp_path / "shop.dump", timezone.now()
    returned, kept = place_order(), place_order()
    complete(returned)
    complete(kept)
    charged_later = place_order()
    program("pg_dump", "--format=custom", f"--file={dump}", name)
    complete(charged_later)
    services.want_refund(returned, by="Sam")
    services.refund(returned.pk)
    placed_later = place_order()
    complete(placed_later)

    program("pg_restore", "--clean", "--if-exists", f"--dbname={name}", dump)
    restored = [status(order) for order in (returned, kept, charged_later)]
    # What the sweep, or an old snapshot of the broker, queues: rows that are open, that have ended, that are gone.
    for order in (returned, kept, charged_later, placed_later):
        tasks.process_order.apply(kwargs={"order_id": order.pk})
    call_command("reconcile", since.isoformat())

    assert restored == [Status.COMPLETED, Status.COMPLETED, Status.PENDING]
    assert [status(order) for order in (returned, kept, charged_later)] == ["refunded", "completed", "completed"]
    said = capsys.readouterr().out
    assert f"order {placed_later.reference}: there is no such payment here" in said
    assert said.count("there is no such payment here") == 1
    for order in (returned, kept, charged_later, placed_later):
        with urlopen(f"{provider}/ledger.json?order={order.reference}") as answer:
            assert len(json.load(answer)["charges"]) == 1
