"""Each task has a test that twice is once, and one with a real worker process; the last ones that were missing."""

import ast
import re
from functools import cache

import pytest
from django.conf import settings
from django.utils import timezone
from django_celery_results.models import TaskResult

from accounts.models import User
from myproject import tasks
from myproject.celery import app, debug_task
from orders import services
from orders.models import Status
from orders.tasks import process_order, refund_order
from tests.broker import Broker
from tests.factories import make_user, place_order
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]

CLEARED = "test_clean_ups::test_clean_up_is_run_by_a_real_worker"
BEATS = "test_beat::test_two_beats_and_a_bad_schedule_do_no_harm"
SAMPLES = "test_try_it::test_sample_tasks_run_twice_do_the_same"
FOLLOWED = "test_try_it::test_page_follows_each_sample_through_a_real_worker"
LATE = "reports/test_schedules::test_report_is_made_once_and_mailed_to_each_after_beat_was_down_at_its_time"
HERE = "test_proofs::test_worker_does_what_no_other_test_asks_of_it"

# The test that twice is once, and the one with a real worker.
PROOFS = {
    "orders.tasks.process_order": ("orders/test_tasks::test_process_order_twice_is_once", BEATS),
    "orders.tasks.send_order_confirmation": ("orders/test_tasks::test_send_order_confirmation_twice_is_once", BEATS),
    "orders.tasks.refund_order": ("orders/test_refunds::test_refund_order_is_safe_to_repeat", HERE),
    "orders.tasks.import_products": (
        "orders/test_import_services::test_import_products_twice_is_once",
        "orders/test_import_views::test_import_that_was_killed_in_the_middle_goes_on_and_ends_right",
    ),
    "orders.tasks.handle_import_failure": (
        "orders/test_import_services::test_handle_import_failure_twice_tells_once",
        "orders/test_import_views::test_person_is_told_by_the_callback_when_the_task_has_failed",
    ),
    "orders.tasks.make_thumbnails": (
        "orders/test_pictures::test_make_thumbnails_twice_is_once",
        "orders/test_pictures::test_worker_makes_what_was_left_behind",
    ),
    "orders.tasks.send_digest_emails": (
        "orders/test_digests::test_send_digest_emails_twice_is_once",
        "orders/test_digests::test_worker_sends_each_reader_one_digest_when_it_is_told_twice",
    ),
    "orders.tasks.check_pending_orders": (
        "orders/test_tasks::test_check_pending_orders_twice_has_one_effect",
        BEATS,
    ),
    "orders.tasks.check_pending_pictures": (
        "orders/test_pictures::test_check_pending_pictures_twice_has_one_effect",
        "orders/test_pictures::test_worker_makes_what_was_left_behind",
    ),
    "orders.tasks.check_unfinished_imports": (
        "orders/test_import_services::test_check_unfinished_imports_twice_imports_once",
        "orders/test_import_views::test_person_is_told_by_the_sweep_when_the_callback_was_lost",
    ),
    "orders.tasks.check_unsent_digests": (
        "orders/test_digests::test_check_unsent_digests_twice_sends_each_once",
        "orders/test_digests::test_sweep_of_the_real_beat_finds_digests_whose_message_was_lost",
    ),
    "orders.tasks.sync_inventory": (
        "orders/test_inventory::test_sync_twice_is_once",
        "orders/test_inventory::test_button_has_a_worker_take_over_what_arrived",
    ),
    "orders.tasks.clear_old_events": ("test_clean_ups::test_clear_old_events_keeps_the_audit_trail", CLEARED),
    "orders.tasks.clear_old_files": (
        "test_clean_ups::test_clear_old_files_takes_imports_that_ended_with_their_lines_and_files",
        CLEARED,
    ),
    "orders.tasks.send_weekly_digest": (
        "orders/test_digests::test_send_weekly_digest_twice_is_once",
        "orders/test_digests::test_worker_sends_each_reader_one_digest_when_it_is_told_twice",
    ),
    "accounts.tasks.send_welcome_email": ("accounts/test_accounts::test_send_welcome_email_twice_is_once", HERE),
    "accounts.tasks.send_account_email": ("accounts/test_accounts::test_send_account_email_twice_is_once", BEATS),
    "accounts.tasks.send_notification_email": (
        "accounts/test_notifications::test_send_notification_email_twice_is_once",
        "accounts/test_notifications::test_worker_sends_a_notice_whose_message_was_lost",
    ),
    "accounts.tasks.sync_user_to_crm": (
        "accounts/test_crm::test_sync_user_to_crm_twice_is_once",
        "accounts/test_crm_worker::test_registration_reaches_the_crm",
    ),
    "accounts.tasks.check_unsent_mail": (
        "accounts/test_accounts::test_check_unsent_mail_twice_sends_each_mail_once",
        BEATS,
    ),
    "accounts.tasks.check_unsynced_contacts": (
        "accounts/test_crm::test_check_unsynced_contacts_twice_tells_each_once",
        "accounts/test_crm_worker::test_person_is_told_when_the_message_was_never_sent",
    ),
    "accounts.tasks.clear_old_mail": ("test_clean_ups::test_clear_old_mail_keeps_what_is_owed_or_new", CLEARED),
    "accounts.tasks.catch_up_with_crm": (
        "accounts/test_crm::test_catch_up_with_crm_twice_is_once",
        "accounts/test_crm_worker::test_catch_up_reaches_the_crm",
    ),
    "reports.tasks.generate_report": ("reports/test_reports::test_generate_report_twice_is_once", BEATS),
    "reports.tasks.erase_account": (
        "reports/test_erasure::test_erase_account_twice_is_once",
        "reports/test_erasure::test_account_is_erased_by_the_worker",
    ),
    "reports.tasks.plan_scheduled_report": ("reports/test_schedules::test_plan_scheduled_report_twice_is_once", LATE),
    "reports.tasks.generate_pack": (
        "reports/test_packs::test_generate_pack_twice_is_once",
        "reports/test_packs::test_pack_is_made_once_although_messages_are_doubled_and_a_child_is_killed",
    ),
    "reports.tasks.check_unfinished_reports": (
        "reports/test_reports::test_check_unfinished_reports_twice_writes_one_file",
        BEATS,
    ),
    "reports.tasks.check_unfinished_erasures": (
        "reports/test_erasure::test_check_unfinished_erasures_twice_erases_once",
        "reports/test_erasure::test_account_is_erased_although_the_worker_is_killed",
    ),
    "reports.tasks.update_daily_sales": (
        "reports/test_daily_sales::test_update_twice_is_once",
        "reports/test_daily_sales::test_worker_keeps_the_daily_sales_up_to_date",
    ),
    "reports.tasks.check_due_schedules": (
        "reports/test_schedules::test_report_is_made_once_per_slot_and_again_a_week_later",
        LATE,
    ),
    "reports.tasks.check_unfinished_packs": (
        "reports/test_packs::test_generate_pack_twice_is_once",
        "reports/test_packs::test_pack_is_made_by_the_sweep_when_each_callback_was_lost",
    ),
    "reports.tasks.clear_old_reports": (
        "test_clean_ups::test_clear_old_reports_removes_the_file_and_says_so_on_the_row",
        CLEARED,
    ),
    "myproject.tasks.send_alert": (
        "test_alerts::test_send_alert_twice_is_once",
        "test_alerts::test_worker_tells_the_chat_of_a_task_that_gives_up_once",
    ),
    "myproject.tasks.canary": (
        "test_canaries::test_canary_twice_is_once",
        "test_canaries::test_worker_runs_a_canary_of_each_queue_and_tells_of_the_queue_that_it_does_not_read",
    ),
    "myproject.tasks.check_unsent_alerts": (
        "test_alerts::test_check_unsent_alerts_queues_what_is_due",
        "test_alerts::test_worker_tells_what_nobody_was_told_of_because_its_message_was_lost",
    ),
    "myproject.tasks.clear_task_results": ("test_tasks::test_clear_task_results_keeps_a_week", CLEARED),
    "myproject.tasks.clear_sessions": ("test_tasks::test_clear_sessions_keeps_what_has_not_expired", CLEARED),
    "myproject.tasks.clear_old_alerts": (
        "test_clean_ups::test_clear_old_alerts_keeps_what_is_due_or_has_happened_lately",
        CLEARED,
    ),
    "myproject.tasks.heartbeat": ("test_proofs::test_tasks_that_change_nothing_may_run_twice", HERE),
    "myproject.celery.debug_task": ("test_proofs::test_tasks_that_change_nothing_may_run_twice", HERE),
    **{f"myproject.tasks.{name}": (SAMPLES, FOLLOWED) for name in ("add", "multiply", "wait", "fail", "fail_twice")},
}


@cache
def functions(path: str) -> dict[str, list[str]]:
    """Return the functions of a test file, each with the names of its arguments."""
    tree = ast.parse((settings.BASE_DIR / "tests" / f"{path}.py").read_text())
    return {node.name: [a.arg for a in node.args.args] for node in tree.body if isinstance(node, ast.FunctionDef)}


def has_worker(test: str) -> bool:
    path, name = test.split("::")
    return "shop" in functions(path)[name]


def test_each_task_is_proved() -> None:
    app.loader.import_default_modules()

    assert set(PROOFS) == {name for name in app.tasks if not name.startswith("celery.")}


@pytest.mark.parametrize("task", PROOFS)
def test_proof_of_a_task_is_a_test_that_exists(task: str) -> None:
    twice, worker = PROOFS[task]

    path, name = twice.split("::")
    assert name in functions(path)
    assert has_worker(worker)


# --- What no other test proves ---


@pytest.mark.django_db
def test_tasks_that_change_nothing_may_run_twice(broker: Broker) -> None:
    for task in (tasks.heartbeat, debug_task):
        assert [task.apply().state for _ in range(2)] == ["SUCCESS"] * 2

    assert broker.messages() == []
    assert not TaskResult.objects.exists()


def test_worker_does_what_no_other_test_asks_of_it(shop: Shop) -> None:
    order, reader = place_order(), make_user(mail_due_at=timezone.now())
    process_order.delay(order_id=order.pk)
    wait_for(lambda: order.events.filter(kind="completed").exists(), "the order")
    services.want_refund(order, by="Sam")
    asked = debug_task.delay()

    refund_order.delay(order_id=order.pk)

    wait_for(lambda: type(order).objects.get(pk=order.pk).status == Status.REFUNDED, "the refund")
    wait_for(User.objects.filter(pk=reader.pk, mail_sent_at__isnull=False).exists, "the welcome")
    wait_for(TaskResult.objects.filter(task_name=tasks.heartbeat.name, status="SUCCESS").exists, "a heartbeat")
    log = settings.VAR_DIR / "processes.log"
    ended = re.compile(rf"task_succeeded.* task_id={asked.id}")
    wait_for(lambda: ended.search(log.read_text(errors="replace")), "the printed request")
    assert [mail["subject"] for mail in shop.sandbox(f"/mail.json?to={reader.email}")] == ["Welcome to Lantern & Loom"]
