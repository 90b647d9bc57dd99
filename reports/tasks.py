import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings

from accounts.models import Erasure
from accounts.tasks import send_notification_email, sync_user_to_crm
from durable.errors import PermanentError, TemporaryError
from durable.task import Task, queue_many
from myproject.storage.clean_ups import CLEAR_LIMITS, going_on_next_night

from . import daily_sales, erasure, outcomes, packs, planning, services
from .models import MAX_ATTEMPTS, Pack, Report
from .schedules import SCHEDULES

log = logging.getLogger(__name__)

LIMIT_SECONDS = settings.REPORT_LIMIT.total_seconds()
# A nudge is dropped when its sweep would be, before the next one, so that busy workers do not find hundreds of them.
SWEPT_REPORTS_EXPIRE = SCHEDULES["Check unfinished reports"].expires
SWEPT_ERASURES_EXPIRE = SCHEDULES["Check unfinished erasures"].expires


@shared_task(bind=True, soft_time_limit=LIMIT_SECONDS * 0.8, time_limit=LIMIT_SECONDS)
def generate_report(self: Task, *, report_id: str) -> None:
    """Write the report whose turn it is, not always this one. Safe to repeat: it is claimed, and has one file."""
    report = Report.objects.claim(self.request.id or "")
    if report is None:
        log.info("Report %s has ended, is being written, or has to wait its turn", report_id)
        return
    try:
        with settling(report):
            services.write_report(report)
    finally:
        nudge_after(report)
        queue_next()


@contextmanager
def settling(report: Report) -> Iterator[None]:
    """End the row with a reason when its report fails for good, or put it off: never leave it "running" for ever."""
    try:
        yield
    except SoftTimeLimitExceeded as error:
        put_off(report, error, f"It took longer than {LIMIT_SECONDS * 0.8 / 60:.0f} minutes.")
    except services.SHORTAGES as error:
        put_off(report, error)
    except PermanentError as error:
        # Nobody's fault, and whoever asked can ask for less.
        outcomes.fail(report, str(error))
    except Exception as error:
        outcomes.fail(report, f"The report could not be written ({type(error).__name__}).")
        raise


def put_off(report: Report, error: Exception, reason: str = "") -> None:
    """Leave it to the sweep, which looks after rows of dead workers as well; raises after the last attempt."""
    log.warning("Report %s, attempt %s: %r", report.pk, report.attempts, error)
    if not services.put_off(report, error, reason):
        # Not the error itself, which Celery would try again.
        raise PermanentError(f"The report could not be written in {MAX_ATTEMPTS} attempts.") from error


def queue_next() -> None:
    """Nudge for whoever had to wait until this person, or this worker, had one report less."""
    if report := Report.objects.next():
        queue_many(generate_report, [{"report_id": str(report.pk)}])


def nudge_after(report: Report) -> None:
    """Queue what waits for the end of a report; what gets lost here, the sweeps queue again."""
    ended = Report.objects.ended().filter(pk=report.pk).first()
    for person in outcomes.audience(ended) if ended else []:
        send_notification_email.delay(user_id=person.pk)
    if ended and ended.pack_id:
        generate_pack.delay(pack_id=str(ended.pack_id))


@shared_task(ignore_result=True)
def check_unfinished_reports() -> None:
    """Queue again what was left behind, and give up what died too often. Safe to repeat: so is each report."""
    for report in Report.objects.left_behind().order_by("due_at")[:100]:
        if report.attempts >= MAX_ATTEMPTS:
            outcomes.fail(
                report, f"The report could not be written: {MAX_ATTEMPTS} times its worker ended in the middle."
            )
            nudge_after(report)
        else:
            generate_report.apply_async(kwargs={"report_id": str(report.pk)}, expires=SWEPT_REPORTS_EXPIRE)


@shared_task(soft_time_limit=50, time_limit=60, ignore_result=True)
def plan_scheduled_report(*, schedule_id: str) -> None:
    """Write down the report that a schedule owes, and queue it. Safe to repeat: each of its times is seen to once."""
    if report := planning.plan_due(schedule_id):
        generate_report.delay(report_id=str(report.pk))


@shared_task(soft_time_limit=50, time_limit=60, ignore_result=True)
def check_due_schedules() -> None:
    """Queue schedules whose time was missed, or whose message was lost. Safe to repeat: so is each schedule."""
    for schedule in planning.all_due():
        plan_scheduled_report.delay(schedule_id=str(schedule.pk))


class PackTask(Task):
    """Ends the pack when its task has failed for good."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        super().on_failure(exc, task_id, args, kwargs, einfo)
        reason = f"{exc} Ask for it again later." if isinstance(exc, TemporaryError) else packs.BROKEN
        if packs.fail(Pack(pk=kwargs["pack_id"]), reason):
            nudge_after_pack(kwargs["pack_id"])


@shared_task(
    bind=True, base=PackTask, soft_time_limit=LIMIT_SECONDS * 0.8, time_limit=LIMIT_SECONDS, ignore_result=True
)
def generate_pack(self: Task, *, pack_id: str) -> None:
    """Bundle a pack whose reports have all ended. Safe to repeat: the row is claimed, and ends once, with one file."""
    pack = Pack.objects.get(pk=pack_id)
    if pack.mark_bundling(self.request.id):
        packs.write_pack(pack)
        nudge_after_pack(pack_id)


def nudge_after_pack(pack_id: str) -> None:
    send_notification_email.delay(user_id=Pack.objects.get(pk=pack_id).requested_by_id)


@shared_task(ignore_result=True)
def check_unfinished_packs() -> None:
    """Queue again packs whose nudge was lost, and give up what died too often. Safe to repeat: so is each pack."""
    for pack in Pack.objects.left_behind().order_by("due_at")[:100]:
        if pack.attempts < MAX_ATTEMPTS:
            generate_pack.delay(pack_id=str(pack.pk))
        elif packs.fail(pack):
            nudge_after_pack(str(pack.pk))


@shared_task(**CLEAR_LIMITS, ignore_result=True)
def clear_old_reports() -> None:
    """Remove files of old reports, and files that no report names. Safe to repeat: the row lets go of a file once."""
    with going_on_next_night("reports"):
        services.remove_old_files()
        services.remove_orphans()
        packs.remove_old_files()
        packs.remove_orphans()


@shared_task(soft_time_limit=240, time_limit=300, ignore_result=True)
def erase_account(*, user_id: int) -> None:
    """Erase what a deleted account leaves behind. Safe to repeat: what is gone is gone, the farewell is sent once."""
    sync_user_to_crm.delay(user_id=user_id)
    for owed in Erasure.objects.filter(user=user_id).select_related("user"):
        erasure.erase(owed)


@shared_task(ignore_result=True)
def check_unfinished_erasures() -> None:
    """Queue again what is still to be erased. Safe to repeat: so is each erasure."""
    for user_id in Erasure.objects.order_by("mail_due_at").values_list("user", flat=True)[:100]:
        erase_account.apply_async(kwargs={"user_id": user_id}, expires=SWEPT_ERASURES_EXPIRE)


@shared_task(soft_time_limit=240, time_limit=300, ignore_result=True)
def update_daily_sales() -> None:
    """Count again the days on which something was sold or refunded. Safe to repeat: a count replaces the one before."""
    daily_sales.update()
