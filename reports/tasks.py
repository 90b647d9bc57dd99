import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings

from accounts.models import Erasure
from accounts.tasks import send_notification_email, sync_user_to_crm
from durable.errors import PermanentError, TemporaryError
from durable.sweeps import Sweep, sweep
from durable.task import Task, queue_many
from myproject.storage.clean_ups import CLEAR_LIMITS, going_on_next_night

from . import daily_sales, erasure, outcomes, packs, planning, services
from .models import MAX_ATTEMPTS, Pack, PackQuerySet, Report
from .schedules import SCHEDULES

log = logging.getLogger(__name__)

LIMIT_SECONDS = settings.REPORT_LIMIT.total_seconds()


@shared_task(soft_time_limit=LIMIT_SECONDS * 0.8, time_limit=LIMIT_SECONDS)
def generate_report(*, report_id: str) -> None:
    """Write the next report, which need not be this one. Safe to repeat: the row is claimed, and has one file."""
    report = Report.objects.claim_next()
    if report is None:
        log.info("Report %s has ended, is being written, or has to wait", report_id)
        return
    try:
        with settling(report):
            services.write_report(report)
    finally:
        queue_what_waits_for(report)
        queue_next()


@contextmanager
def settling(report: Report) -> Iterator[None]:
    """End the row with a reason on permanent failure, or schedule a retry: a row must not stay "running" forever."""
    try:
        yield
    except SoftTimeLimitExceeded as error:
        put_off(report, error, f"It took longer than {LIMIT_SECONDS * 0.8 / 60:.0f} minutes.")
    except services.SHORTAGES as error:
        put_off(report, error)
    except PermanentError as error:
        # Not a bug: the person can request a smaller report.
        outcomes.fail(report.held(), str(error))
    except Exception as error:
        outcomes.fail(report.held(), f"The report could not be written ({type(error).__name__}).")
        raise


def put_off(report: Report, error: Exception, reason: str = "") -> None:
    """Leave the report to the sweep, as if its worker had died; raises after the last attempt."""
    log.warning("Report %s, attempt %s: %r", report.pk, report.attempts, error)
    if not services.put_off(report, error, reason):
        # Not the error itself: Celery would retry it.
        raise PermanentError(f"The report could not be written in {MAX_ATTEMPTS} attempts.") from error


def queue_next() -> None:
    """Queue the next report, now that this person and this worker have one less."""
    if report := Report.objects.next():
        queue_many(generate_report, [{"report_id": str(report.pk)}])


def queue_what_waits_for(report: Report) -> None:
    """Queue the notices and the pack that wait for this report; sweeps cover lost messages."""
    ended = Report.objects.ended().filter(pk=report.pk).first()
    for person in outcomes.audience(ended) if ended else []:
        send_notification_email.delay(user_id=person.pk)
    if ended and ended.pack_id:
        generate_pack.delay(pack_id=str(ended.pack_id))


@sweep(SCHEDULES["Check unfinished reports"])
def check_unfinished_reports() -> list[Sweep]:
    """Queue overdue reports again; fail those whose attempts are used up. Safe to repeat: so is each report."""
    due = Report.objects.due().order_by("due_at")
    return [Sweep(due, generate_report, "report_id", give_up=give_up_reports)]


def give_up_reports() -> None:
    reason = f"The report could not be written: its worker died {MAX_ATTEMPTS} times."
    for report in outcomes.fail(Report.objects.exhausted(), reason):
        queue_what_waits_for(report)


@shared_task(soft_time_limit=50, time_limit=60, ignore_result=True)
def plan_scheduled_report(*, schedule_id: str) -> None:
    """Create and queue the report that a schedule owes. Safe to repeat: each slot is handled once."""
    if report := planning.plan_due(schedule_id):
        generate_report.delay(report_id=str(report.pk))


@sweep(SCHEDULES["Check due report schedules"])
def check_due_schedules() -> list[Sweep]:
    """Queue schedules whose slot was missed or whose message was lost. Safe to repeat: so is each schedule."""
    return [Sweep(planning.all_due(), plan_scheduled_report, "schedule_id")]


class PackTask(Task):
    """Ends the pack when its task has failed permanently."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        super().on_failure(exc, task_id, args, kwargs, einfo)
        reason = f"{exc} Please request it again later." if isinstance(exc, TemporaryError) else packs.BROKEN
        fail_packs(Pack.objects.claimed_in(task_id), reason)


@shared_task(base=PackTask, soft_time_limit=LIMIT_SECONDS * 0.8, time_limit=LIMIT_SECONDS, ignore_result=True)
def generate_pack(*, pack_id: str) -> None:
    """Bundle a pack whose reports have all ended. Safe to repeat: the row is claimed, and ends once with one file."""
    for pack in Pack.objects.claim_complete(pack_id):
        packs.write_pack(pack)
        send_notification_email.delay(user_id=pack.requested_by_id)


def fail_packs(rows: PackQuerySet, reason: str = packs.BROKEN) -> None:
    for pack in packs.fail(rows, reason):
        send_notification_email.delay(user_id=pack.requested_by_id)


@sweep(SCHEDULES["Check unfinished packs"])
def check_unfinished_packs() -> list[Sweep]:
    """Queue overdue packs again; fail those whose attempts are used up. Safe to repeat: so is each pack."""
    due = Pack.objects.complete().due().order_by("due_at")
    return [Sweep(due, generate_pack, "pack_id", give_up=partial(fail_packs, Pack.objects.exhausted()))]


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_reports() -> None:
    """Remove files of old reports, and files that no row names. Safe to repeat: a row is cleared once."""
    with going_on_next_night("reports"):
        services.remove_old_files()
        services.remove_orphans()
        packs.remove_old_files()
        packs.remove_orphans()


@shared_task(soft_time_limit=240, time_limit=300, ignore_result=True)
def erase_account(*, user_id: int) -> None:
    """Erase the data of a deleted account. Safe to repeat: deletes are idempotent, the farewell is sent once."""
    sync_user_to_crm.delay(user_id=user_id)
    for owed in Erasure.objects.filter(user=user_id).select_related("user"):
        erasure.erase(owed)


@sweep(SCHEDULES["Check unfinished erasures"])
def check_unfinished_erasures() -> list[Sweep]:
    """Queue unfinished erasures again. Safe to repeat: so is each erasure."""
    return [Sweep(Erasure.objects.order_by("mail_due_at"), erase_account, "user_id", "user_id")]


@shared_task(soft_time_limit=240, time_limit=300, ignore_result=True)
def update_daily_sales() -> None:
    """Count again the days with sales or refunds. Safe to repeat: a count replaces the previous one."""
    daily_sales.update()
