"""The shop behind a real PgBouncer that lends a server for one transaction: orders, reports, exports, limits."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from myproject import embedded
from orders.models import Order, Status
from reports.models import Format, Kind, Report
from reports.models import Status as ReportStatus
from reports.tasks import generate_report
from tests.broker import Broker
from tests.factories import make_export, make_product, make_report, place_order, put
from tests.faults.buyers import Buyer
from tests.operations.test_database import active, slow
from tests.ports import free_port
from tests.running import running, sandbox, worker
from tests.shop import wait_for

pytest_plugins = ["tests.broker", "tests.running"]
pytestmark = [pytest.mark.operations, pytest.mark.django_db(transaction=True)]

# Debian installs it where only root looks.
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
POOL = 2


@pytest.fixture
def bouncer(tmp_path: Path) -> Iterator[Callable[[str], dict[str, str]]]:
    """Run PgBouncer with the lines of deploy/; return a function: the variables with which processes reach it."""
    if PROGRAM is None:
        pytest.skip("needs pgbouncer: apt install pgbouncer")
    port, path = free_port(), tmp_path / "pgbouncer.ini"
    path.write_text(adapted((settings.BASE_DIR / "deploy" / "pgbouncer.ini").read_text(), port))
    command = " ".join(map(str, [*embedded.Postgres._as_nobody(), PROGRAM, path]))

    def reach(name: str) -> dict[str, str]:
        return {"DATABASE_URL": f"postgres://postgres@127.0.0.1:{port}/{name}", "DATABASE_PGBOUNCER": "true"}

    with running(command):
        wait_for(lambda: accepts(reach("shop_web")["DATABASE_URL"]), "PgBouncer")
        yield reach


def adapted(ini: str, port: int) -> str:
    """Put the test's own addresses, and a pool that is too small, into the lines of deploy/."""
    server = f"host={embedded.socket_dir(settings.VAR_DIR)} user=postgres dbname={connection.settings_dict['NAME']}"
    places = {"host=postgres dbname=shop": server, "0.0.0.0": "127.0.0.1", "6432": str(port), "scram-sha-256": "any"}
    for old, new in places.items():
        assert old in ini
        ini = ini.replace(old, new)
    ini = re.sub(r"default_pool_size = .*", f"default_pool_size = {POOL}", re.sub(r"auth_file = .*", "", ini))
    return f"{ini}\nunix_socket_dir =\n"


def accepts(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def servers() -> int:
    """Count the connections of others to this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def ended(report: Report) -> bool:
    return Report.objects.ended().filter(pk=report.pk).exists()


def test_shop_works_whole_behind_pgbouncer(bouncer: Callable[[str], Any], web: Any, queue: Broker) -> None:
    buyers = [Buyer(make_product()) for _ in range(3)]
    today = timezone.localdate()
    # Lines, which are copied, and sums, which take a temporary table.
    wanted = [(Kind.SALES, Format.CSV), (Kind.SALES, Format.XLSX), (Kind.SALES_BY_DAY, Format.PDF)]
    reports = [make_report(kind=kind, start=today, end=today, format=format_) for kind, format_ in wanted]

    with sandbox() as places, web(**bouncer("shop_web")), worker(**places, **bouncer("shop_worker")):
        for buyer in buyers:
            buyer.prepare()
            buyer.check_out()
        wait_for(lambda: Order.objects.filter(status=Status.COMPLETED).count() == 3, "the orders to complete")
        wait_for(lambda: not Order.objects.filter(mail_sent_at=None).exists(), "their confirmations")
        reports += [make_export(buyers[0].person)]
        for report in reports:
            generate_report.delay(report_id=str(report.pk))
        wait_for(lambda: all(map(ended, reports)), "the reports")
        most = servers()

    for report in reports:
        report.refresh_from_db()
        assert report.status == ReportStatus.READY, report.error
        assert report.row_count
    assert most <= 2 * POOL
    assert not [status for buyer in buyers for status in buyer.statuses if status >= 500]


def test_query_of_a_cancelled_report_is_ended_through_pgbouncer(bouncer: Callable[[str], Any], queue: Broker) -> None:
    put(place_order(), Status.COMPLETED)
    today = timezone.localdate()
    report = make_report(start=today, end=today)

    with slow("orders_order", 600), worker(**bouncer("shop_worker")):
        generate_report.delay(report_id=str(report.pk))
        wait_for(lambda: active("orders_order"), "the worker to read")
        assert Report.objects.get(pk=report.pk).mark_cancelled()
        wait_for(lambda: not active("orders_order"), "the query to end")


@pytest.mark.parametrize(("name", "limits"), [("shop_web", "20s 5s 30s 5s"), ("shop_worker", "30min 15s 10min 5s")])
def test_limits_behind_pgbouncer_are_those_of_the_settings(
    name: str, limits: str, bouncer: Callable[[str], Any]
) -> None:
    asked = ", ".join(f"current_setting('{limit}')" for limit in settings.DATABASE_LIMITS)

    with psycopg.connect(bouncer(name)["DATABASE_URL"]) as client:
        row = client.execute(f"SELECT {asked}").fetchone()

    assert row == tuple(limits.split())


def test_migrations_refuse_to_go_through_pgbouncer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)

    with pytest.raises(CommandError, match="past PgBouncer"):
        call_command("migrate")
