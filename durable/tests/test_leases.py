"""A row is held by one worker at a time, and a worker that was overtaken writes nothing."""

import time
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from durable.leases import NEWEST_WAIT, SHORTEST_WAIT, LeaseLost
from durable.tests.conftest import claim, end_lease, task
from durable.tests.jobs.models import Job

pytestmark = pytest.mark.django_db


def job(**fields: object) -> Job:
    return Job.objects.create(**Job.lease.fresh() | fields)


def test_claim_takes_a_new_row_before_the_sweep_would() -> None:
    row, start = job(), timezone.now()

    held = claim(row, "one")

    row.refresh_from_db()
    assert held is not None
    assert (held.claimed_by, held.attempts) == (row.claimed_by, 1)
    assert row.claimed_by.startswith("one/")
    assert row.due_at is not None
    assert start + Job.lease.lasts() <= row.due_at <= timezone.now() + Job.lease.lasts()


def test_claim_leaves_a_row_to_the_worker_that_holds_it_until_its_lease_is_over() -> None:
    row = job()
    claim(row)

    early = claim(row)
    end_lease(row)
    late = claim(row)

    assert (early, late) == (None, row)


def test_retry_of_the_same_task_comes_back_to_its_row_with_a_new_token() -> None:
    row = job()

    first, again = claim(row, "same"), claim(row, "same")

    assert first is not None
    assert again is not None
    assert first.claimed_by != again.claimed_by


@pytest.mark.parametrize("fields", [{"is_done": True, "due_at": None}, {"attempts": 3}], ids=["ended", "exhausted"])
def test_claim_leaves_out_what_owes_no_work(fields: dict[str, object]) -> None:
    assert claim(job(**fields)) is None


def test_claim_of_a_set_takes_the_named_row_first_and_shares_a_token() -> None:
    rows = [job() for _ in range(4)]

    with task():
        claimed = Job.objects.claim(first=Job.objects.filter(pk=rows[2].pk), limit=3)

    assert [row.pk for row in claimed] == [rows[2].pk, rows[0].pk, rows[1].pk]
    assert len({row.claimed_by for row in claimed}) == 1


def test_claim_of_one_named_row_never_takes_another() -> None:
    taken, other = job(), job()
    claim(taken)

    assert claim(taken) is None
    assert Job.objects.get(pk=other.pk).claimed_by == ""


def test_claim_is_one_statement() -> None:
    row = job()

    with CaptureQueriesContext(connection) as queries:
        claim(row)

    assert len(queries) == 1


def waiting(before: timedelta = 2 * SHORTEST_WAIT) -> Job:
    """Return a job whose message has been on its way for so long."""
    return job(**Job.lease.until(Job.lease.lasts() - before))


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass but what the test says."""
    moment = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: moment)


@pytest.mark.usefixtures("still")
def test_row_written_while_an_older_one_waits_is_taken_along() -> None:
    waiting()

    assert Job.objects.all().takes_along(job(pk=10_001), every=25)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda: None,
        lambda: claim(waiting()),
        lambda: waiting(before=2 * NEWEST_WAIT),
        lambda: waiting(before=timedelta(0)),
        lambda: job(pk=20_000, **Job.lease.until(Job.lease.lasts() - 2 * SHORTEST_WAIT)),
        lambda: Job.objects.filter(pk=waiting().pk).finish(is_done=True),
    ],
    ids=["alone", "the other is claimed", "its message may be lost", "no worker is late", "it is newer", "it is done"],
)
@pytest.mark.usefixtures("still")
def test_row_has_a_message_of_its_own_unless_an_older_one_waits(prepare: Callable[[], object]) -> None:
    prepare()

    assert not Job.objects.all().takes_along(job(pk=10_001), every=25)


@pytest.mark.usefixtures("still")
def test_each_so_many_rows_one_has_a_message_of_its_own_for_those_that_are_lost() -> None:
    waiting()
    rows = [job(pk=10_000 + n) for n in range(50)]

    own = [row.pk for row in rows if not Job.objects.all().takes_along(row, every=25)]

    assert own == [10_000, 10_025]


WRITES: dict[str, Callable[[Job], object]] = {
    "hold": lambda row: row.hold(effects=7),
    "put off": lambda row: row.put_off(timedelta(0), effects=7),
    "finish": lambda row: row.finish(is_done=True),
    "finish of a set": lambda row: Job.objects.held([row]).finish(is_done=True),
}


@pytest.mark.parametrize("same_task", [True, False], ids=["by a copy of its message", "by another task"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_holder_that_was_frozen_and_overtaken_writes_nothing(write: Callable[[Job], object], same_task: bool) -> None:
    row = job()
    frozen = claim(row, "same")
    end_lease(row)
    claim(row, "same" if same_task else "other")
    before = Job.objects.values().get()

    assert frozen is not None
    try:
        written = write(frozen)
    except LeaseLost:
        written = False

    assert not written
    assert Job.objects.values().get() == before


def test_hold_extends_the_lease() -> None:
    held = claim(row := job())
    end_lease(row)

    assert held is not None
    held.hold(effects=1)

    assert claim(row) is None


def test_row_that_was_put_off_waits_for_its_time_but_for_its_own_task() -> None:
    held = claim(row := job(), "own")

    assert held is not None
    held.put_off(timedelta(hours=1))

    assert (claim(row, "other"), claim(row, "own")) == (None, row)


def test_work_that_ends_is_due_no_more() -> None:
    held = claim(job())

    assert held is not None
    assert held.finish(is_done=True)
    assert not held.finish(is_done=True)
    assert Job.objects.values_list("due_at", "claimed_by").get() == (None, "")


def test_due_and_exhausted_have_a_row_on_each_side() -> None:
    late, early, tired = job(), job(), job(attempts=3)
    end_lease(late, tired)

    assert (list(Job.objects.due()), list(Job.objects.exhausted())) == ([late], [tired])
    assert early not in Job.objects.due()


def test_claimed_in_finds_the_rows_of_one_task() -> None:
    mine, other = job(), job()
    claim(mine, "mine")
    claim(other, "mine-too")

    assert list(Job.objects.claimed_in("mine")) == [mine]


@pytest.mark.django_db(transaction=True)
def test_one_of_many_workers_wins_the_row() -> None:
    row, barrier, won = job(), Barrier(8), list[Job | None]()

    def work() -> None:
        try:
            barrier.wait()
            won.append(claim(row))
        finally:
            connection.close()

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 8
    assert [held for held in won if held] == [row]


@pytest.mark.django_db(transaction=True)
def test_claim_waits_for_its_named_row_and_returns_it_as_it_is_then() -> None:
    named, other = job(), job()
    found: list[Job] = []

    def work() -> None:
        try:
            with task():
                found.extend(Job.objects.claim(first=Job.objects.filter(pk=named.pk), limit=2))
        finally:
            connection.close()

    with transaction.atomic():
        Job.objects.filter(pk=named.pk).update(effects=7)
        thread = Thread(target=work)
        thread.start()
        wait_until_locked_out()
        # It holds no lock while it waits.
        Job.objects.select_for_update(nowait=True).get(pk=other.pk)
    thread.join(10)

    assert [(row.pk, row.effects) for row in found] == [(named.pk, 7), (other.pk, 0)]


@pytest.mark.django_db(transaction=True)
def test_claim_that_has_waited_for_its_row_leaves_it_to_who_has_taken_it() -> None:
    row = job()
    found: list[Job | None] = []

    def work() -> None:
        try:
            found.append(claim(row))
        finally:
            connection.close()

    with transaction.atomic():
        claim(row)
        thread = Thread(target=work)
        thread.start()
        wait_until_locked_out()
    thread.join(10)

    assert found == [None]


def wait_until_locked_out() -> None:
    """Wait until another connection waits for a lock of this one."""
    deadline = time.monotonic() + 10
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            if cursor.fetchall():
                return
            time.sleep(0.01)
    raise AssertionError("nothing waits for a lock")


@pytest.mark.django_db(transaction=True)
def test_claim_of_a_set_passes_over_rows_that_another_transaction_has_locked() -> None:
    locked, free = job(), job()
    found: list[Job] = []

    def work() -> None:
        try:
            found.extend(Job.objects.claim(limit=2))
        finally:
            connection.close()

    with transaction.atomic():
        Job.objects.select_for_update().get(pk=locked.pk)
        thread = Thread(target=work)
        thread.start()
        thread.join(10)

    assert found == [free]
