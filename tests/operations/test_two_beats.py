"""Beat as a process: two of them at once, and one that is stopped in the middle of a query."""

import json
import subprocess

import pytest
from django.conf import settings
from django.db import connection, transaction
from django_celery_beat.models import PeriodicTask
from django_celery_results.models import TaskResult

from accounts.models import AccountMail, User
from reports.models import Report
from tests.factories import end_lease, make_mail, make_report, place_order
from tests.shop import SECONDS, Shop, wait_for
from tests.test_beat import make_interval

pytestmark = pytest.mark.operations


@pytest.mark.proves(
    "orders.tasks.process_order",
    "orders.tasks.send_order_confirmation",
    "orders.tasks.check_pending_orders",
    "accounts.tasks.send_account_email",
    "accounts.tasks.check_unsent_mail",
    "reports.tasks.generate_report",
    "reports.tasks.check_unfinished_reports",
    "worker",
)
def test_two_beats_and_a_bad_schedule_do_no_harm(shop: Shop, customer: User) -> None:
    order, mail, report = place_order(customer), make_mail(to="twice@example.com"), make_report()
    end_lease(order)
    make_interval(name="Bad", every=1, args="{")
    make_interval(name="Unknown", every=1, queue="ordres")
    own_log = settings.VAR_DIR / "second-beat.log"
    with own_log.open("wb") as log:
        second = subprocess.Popen(
            shop.commands["beat"].split(), cwd=settings.BASE_DIR, env=shop.environment(), stdout=log, stderr=log
        )
    try:
        wait_for(lambda: own_log.read_text().count("orders.tasks.check_pending_orders") > 3, "the second beat")
        wait_for(lambda: order.events.filter(kind="confirmed").exists(), "the confirmed order")
        wait_for(lambda: AccountMail.objects.get().mail_sent_at and Report.objects.get().is_ready, "mail and report")
        seen = TaskResult.objects.count()
        wait_for(lambda: TaskResult.objects.count() > seen + 3, "a few more rounds of both")
    finally:
        second.terminate()
        second.wait(SECONDS)

    assert shop.running["beat"].poll() is None
    charges = [each for each in shop.sandbox("/ledger.json")["charges"] if order.reference in json.dumps(each)]
    assert len(charges) == 1
    assert [len(shop.sandbox(f"/mail.json?to={to}")) for to in (customer.email, mail.to)] == [1, 1]
    assert len(list((settings.MEDIA_ROOT / "reports").glob(f"{report.pk}*"))) == 1


def is_held_up(program: str = "") -> bool:
    """True when some query, of the program of that name, waits for another's lock."""
    with connection.cursor() as cursor:
        # Otherwise it stays what it was at its first look within a transaction.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name ~ %s", [program]
        )
        return cursor.fetchone() != (0,)


def test_beat_ends_when_it_is_stopped_in_the_middle_of_a_query(shop: Shop) -> None:
    beat = shop.running["beat"]
    # From the second time on, it writes down the last runs of many schedules together.
    wait_for(lambda: PeriodicTask.objects.filter(total_run_count__gt=1).count() > 5, "beat to write when each ran")
    with transaction.atomic():
        list(PeriodicTask.objects.select_for_update())
        wait_for(is_held_up, "beat to write again")
        beat.terminate()

    assert beat.wait(SECONDS) == 0


def test_beat_ends_when_it_is_stopped_while_it_reads_the_schedules_for_the_first_time(shop: Shop) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE django_celery_beat_crontabschedule IN ACCESS EXCLUSIVE MODE")
        named = shop.environment() | {"PGAPPNAME": "second"}
        second = subprocess.Popen(shop.commands["beat"].split(), cwd=settings.BASE_DIR, env=named)
        try:
            wait_for(lambda: is_held_up("second"), "the second beat to read")
            second.terminate()

            assert second.wait(SECONDS) == 0
        finally:
            second.kill()
