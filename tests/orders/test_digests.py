"""The weekly digest: planned for all at once, sent a chunk at a time, once for each person and week."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from threading import Barrier
from typing import Any
from urllib.request import urlopen
from zoneinfo import ZoneInfo

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core import mail as outbox
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from accounts import unsubscribe
from accounts.models import User
from durable import mail
from durable.errors import TemporaryError
from orders import digests, emails, tasks
from orders.models import Digest, Order, Product, Skip, days_before, week_of
from tests import test_mail
from tests.broker import Broker
from tests.factories import make_product, make_user, place_order, verified
from tests.shop import Shop, wait_for
from tests.test_mail import Inbox

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

BERLIN = ZoneInfo("Europe/Berlin")
WEEK = week_of(timezone.now())
START, END = days_before(WEEK)
smtp = test_mail.smtp
MESSAGE = ("bulk", "orders.tasks.send_digest_emails", {"week": WEEK.isoformat()})


def make_reader(**fields: Any) -> User:
    return make_user(wants_digest=True, **fields)


def make_readers(count: int) -> None:
    people = [User(email=f"reader{n}@example.com", password="!", wants_digest=True) for n in range(count)]
    User.objects.bulk_create(people)


def order_last_week(person: User, product: Product | None = None) -> Order:
    order = place_order(person, product)
    Order.objects.filter(pk=order.pk).update(created_at=START + timedelta(hours=5))
    return order


def make_news(**fields: Any) -> Product:
    return make_product(created_at=END - timedelta(hours=5), **fields)


def make_old(**fields: Any) -> Product:
    return make_product(created_at=START - timedelta(days=30), **fields)


def plan() -> None:
    digests.plan(WEEK)


def recipients() -> list[str]:
    return sorted(message.to[0] for message in outbox.outbox)


def html_of(message: Any) -> str:
    return str(message.alternatives[0][0])


def states() -> list[tuple[bool, bool, str]]:
    """Return of each digest whether it is sent, whether it is owed, and why it was skipped."""
    rows = Digest.objects.order_by("person__email")
    return [(row.mail_sent_at is not None, row.mail_due_at is not None, row.skip_reason) for row in rows]


# --- Weeks ---


@pytest.mark.parametrize(
    ("moment", "week"),
    [
        (datetime(2026, 11, 22, 23, 59, 59, tzinfo=BERLIN), date(2026, 11, 16)),
        (datetime(2026, 11, 23, 0, 0, tzinfo=BERLIN), date(2026, 11, 23)),
        (datetime(2026, 11, 23, 9, 0, tzinfo=BERLIN), date(2026, 11, 23)),
        # Sunday in Greenwich, Monday in the shop.
        (datetime(2026, 11, 22, 23, 30, tzinfo=ZoneInfo("UTC")), date(2026, 11, 23)),
    ],
)
def test_week_begins_on_monday_in_the_shop_s_own_time(moment: datetime, week: date) -> None:
    assert week_of(moment) == week


@pytest.mark.parametrize(
    ("week", "hours"), [(date(2026, 11, 23), 168), (date(2026, 3, 30), 167), (date(2026, 10, 26), 169)]
)
def test_days_before_are_seven_whole_days_also_when_the_clocks_change(week: date, hours: int) -> None:
    start, end = days_before(week)

    assert (end.timestamp() - start.timestamp()) / 3600 == hours
    assert [(day.astimezone(BERLIN).hour, day.astimezone(BERLIN).weekday()) for day in (start, end)] == [(0, 0)] * 2


@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25)])
def test_digest_is_due_on_mondays_at_nine_also_when_the_clocks_change(change: date) -> None:
    call_command("sync_schedules")
    schedule = PeriodicTask.objects.get(name="Weekly digest").schedule
    last = datetime.combine(change - timedelta(days=9), time(12), BERLIN).astimezone(UTC)
    due = []
    for quarters in range(4 * 24 * 16):
        now = last_look = datetime.combine(change - timedelta(days=9), time(12), UTC) + quarters * timedelta(minutes=15)
        schedule.nowfun = lambda now=now: now
        if schedule.is_due(last).is_due:
            last = last_look
            due.append(now.astimezone(BERLIN))

    assert [(moment.weekday(), moment.hour, moment.minute) for moment in due] == [(0, 9, 0)] * 2
    assert [(moment.date() - change).days for moment in due] == [-6, 1]


# --- Planning ---


def test_plan_writes_a_row_for_each_active_person_who_wants_one() -> None:
    reader = make_reader()
    make_user()
    make_reader(is_active=False)

    planned = digests.plan(WEEK)

    row = Digest.objects.get()
    assert (planned, row.person, row.week) == (1, reader, WEEK)
    assert list(Digest.objects.mail_due()) == [row]


def test_plan_twice_is_once() -> None:
    make_reader()

    assert [digests.plan(WEEK) for _ in range(3)] == [1, 0, 0]


def test_plan_drops_what_was_not_sent_the_week_before() -> None:
    make_reader()
    digests.plan(WEEK - timedelta(days=7))

    plan()

    late, owed = Digest.objects.order_by("week")
    assert (late.skip_reason, late.mail_due_at) == (Skip.LATE, None)
    assert list(Digest.objects.mail_due()) == [owed]


def test_plan_leaves_what_was_sent_as_it_is() -> None:
    make_reader()
    Digest.objects.plan(WEEK - timedelta(days=7))
    Digest.objects.update(mail_sent_at=timezone.now())

    plan()

    assert Digest.objects.order_by("week")[0].skip_reason == ""


@pytest.mark.parametrize(("people", "messages"), [(1, 1), (200, 1), (201, 2), (0, 0)])
def test_send_weekly_digest_queues_a_message_for_each_chunk(people: int, messages: int, broker: Broker) -> None:
    make_readers(people)

    result = tasks.send_weekly_digest.apply()

    assert result.get() == {"planned": people, "messages": messages}
    assert broker.messages() == [MESSAGE] * messages


@pytest.mark.proves("orders.tasks.send_weekly_digest", "twice", page="admin:orders_digest_changelist")
def test_send_weekly_digest_twice_is_once(broker: Broker) -> None:
    make_reader()
    make_news()
    for _ in range(2):
        tasks.send_weekly_digest.apply().get()

    for _, _, kwargs in broker.messages() * 2:
        tasks.send_digest_emails.apply(kwargs=kwargs).get()

    assert (len(outbox.outbox), Digest.objects.count()) == (1, 1)


def test_send_weekly_digest_makes_as_many_queries_for_5000_people_as_for_1000(broker: Broker) -> None:
    counts = {}
    for people in (1000, 5000):
        User.objects.all().delete()
        make_readers(people)
        with CaptureQueriesContext(connection) as queries:
            planned = tasks.send_weekly_digest.apply().get()["planned"]
        counts[planned] = len(queries)

    assert (list(counts), len(broker.messages())) == ([1000, 5000], 5 + 25)
    assert counts[1000] == counts[5000] <= 4


def test_send_weekly_digest_succeeds_when_the_broker_is_away(broker: Broker) -> None:
    make_reader()
    broker.use("redis://127.0.0.1:1")

    result = tasks.send_weekly_digest.apply()

    assert result.get() == {"planned": 1, "messages": 0}
    assert Digest.objects.mail_due().count() == 1


# --- What it says ---


def test_digest_tells_what_was_ordered_and_what_is_new() -> None:
    alice = verified(make_reader(name="Alice <b>", email="alice@example.com"))
    order = order_last_week(alice, make_old(name="Storm & lantern"))
    new = make_news(name="Loom & Co")
    plan()

    digests.send_chunk(WEEK)

    [message] = outbox.outbox
    html = html_of(message)
    for text in (order.reference, "€12.50", settings.SITE_URL + new.get_absolute_url(), "http://localhost:"):
        assert (text in message.body, text in html) == (True, True)
    assert ("Hello Alice <b>" in message.body, "Alice &lt;b&gt;" in html) == (True, True)
    assert ("1 x Storm & lantern" in message.body, "1 × <bdi>Storm &amp; lantern</bdi>" in html) == (True, True)
    assert ("Loom & Co" in message.body, "Loom &amp; Co" in html) == (True, True)
    assert message.subject == "Your week at Lantern & Loom: what you ordered and what is new"


def test_digest_can_be_left_with_one_click() -> None:
    reader = make_reader()
    make_news()
    plan()

    digests.send_chunk(WEEK)

    [message] = outbox.outbox
    [row] = Digest.objects.all()
    address = unsubscribe.url(reader, "digest")
    assert message.extra_headers == {
        "Message-ID": f"<digest-{row.pk}@localhost>",
        "List-Unsubscribe": f"<{address}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    assert (address in message.body, address in html_of(message)) == (True, True)


def test_digest_is_about_one_s_own_orders_of_the_seven_days_before() -> None:
    reader, other = make_reader(), make_reader()
    own, foreign = order_last_week(reader), order_last_week(other)
    edges = {START: True, END - timedelta(microseconds=1): True, START - timedelta(microseconds=1): False, END: False}
    orders = {moment: place_order(reader) for moment in edges}
    for moment, order in orders.items():
        Order.objects.filter(pk=order.pk).update(created_at=moment)

    found = [order.reference for order in digests.orders_of([reader.pk], WEEK)[reader.pk]]

    assert own.reference in found
    assert foreign.reference not in found
    assert {moment: order.reference in found for moment, order in orders.items()} == edges


def test_digest_shows_the_newest_orders_and_counts_the_others() -> None:
    reader = make_reader()
    for _ in range(digests.ORDERS_SHOWN + 3):
        order_last_week(reader)
    plan()

    digests.send_chunk(WEEK)

    newest = Order.objects.order_by("-created_at", "-pk")[: digests.ORDERS_SHOWN]
    assert [order.reference in outbox.outbox[0].body for order in Order.objects.order_by("-pk")] == (
        [True] * len(newest) + [False] * 3
    )
    assert "the newest 10 of 13." in outbox.outbox[0].body


def test_new_products_are_on_sale_and_of_the_seven_days_before() -> None:
    new = make_news()
    make_news(is_active=False)
    make_old()
    make_product(created_at=END)

    assert list(digests.new_products(WEEK)) == [new]


def test_new_products_are_the_newest_few() -> None:
    for _ in range(digests.PRODUCTS_SHOWN + 2):
        make_news()

    assert list(digests.new_products(WEEK)) == list(Product.objects.order_by("-pk")[: digests.PRODUCTS_SHOWN])


def test_product_that_somebody_else_inserts_is_new_now() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orders_product (sku, slug, name, category, description, price, stock, is_active)"
            " VALUES ('RAW-1', 'raw-1', 'Raw', 'Lighting', '', 1, 0, true)"
        )

    assert abs(Product.objects.get().created_at - timezone.now()) < timedelta(minutes=1)


# --- Sending ---


def test_send_chunk_sends_and_records_the_digests_of_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CHUNK", 2)
    make_readers(3)
    make_news()
    plan()

    sent = [digests.send_chunk(WEEK) for _ in range(3)]

    assert sent == [2, 1, 0]
    assert recipients() == [f"reader{n}@example.com" for n in range(3)]
    assert all(row.mail_sent_at for row in Digest.objects.all())


def test_send_chunk_skips_whom_there_is_nothing_to_tell() -> None:
    busy, _ = make_reader(email="a@example.com"), make_reader(email="b@example.com")
    order_last_week(busy, make_old())
    plan()

    digests.send_chunk(WEEK)

    assert recipients() == ["a@example.com"]
    assert states() == [(True, True, ""), (False, False, Skip.NOTHING)]


@pytest.mark.parametrize("change", [{"wants_digest": False}, {"is_active": False}])
def test_send_chunk_skips_who_left_after_it_was_planned(change: dict[str, bool]) -> None:
    make_reader()
    make_news()
    plan()
    User.objects.update(**change)

    digests.send_chunk(WEEK)

    assert (outbox.outbox, states()) == ([], [(False, False, Skip.UNWANTED)])


def test_send_chunk_makes_as_many_queries_for_many_people_as_for_one() -> None:
    make_news()
    counts = []
    for people in (1, 40):
        for _ in range(people):
            order_last_week(make_reader())
        plan()
        with CaptureQueriesContext(connection) as queries:
            sent = digests.send_chunk(WEEK)
        counts.append((sent, len(queries)))

    assert [sent for sent, _ in counts] == [1, 40]
    assert counts[0][1] == counts[1][1]


@pytest.mark.proves("orders.tasks.send_digest_emails", "twice", page="admin:orders_digest_changelist")
def test_send_digest_emails_twice_is_once() -> None:
    make_readers(3)
    make_news()
    plan()

    for _ in range(2):
        tasks.send_digest_emails.apply(kwargs={"week": WEEK.isoformat()}).get()

    assert len(recipients()) == 3


def test_check_unsent_digests_queues_what_is_owed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CHUNK", 2)
    make_readers(3)
    plan()
    sent = Digest.objects.all()[0]
    Digest.objects.filter(pk=sent.pk).update(mail_sent_at=timezone.now())
    make_reader()

    tasks.check_unsent_digests()

    assert broker.messages() == [MESSAGE]


def test_check_unsent_digests_leaves_to_a_worker_what_it_holds(broker: Broker) -> None:
    make_reader()
    plan()
    Digest.objects.claim_mail(limit=1)

    tasks.check_unsent_digests()

    assert broker.messages() == []


@pytest.mark.proves("orders.tasks.check_unsent_digests", "twice")
def test_check_unsent_digests_twice_sends_each_once(broker: Broker) -> None:
    make_readers(3)
    make_news()
    plan()
    for _ in range(2):
        tasks.check_unsent_digests()

    for _, _, kwargs in broker.messages():
        tasks.send_digest_emails.apply(kwargs=kwargs).get()

    assert len(recipients()) == 3


def test_lease_of_a_digest_is_longer_than_its_task_may_take() -> None:
    assert tasks.send_digest_emails.time_limit < mail.LEASE.total_seconds()


@pytest.mark.parametrize(
    ("constraint", "change"),
    [
        ("digest_skipped_is_not_owed", {"skip_reason": Skip.NOTHING}),
        ("digest_once_a_week", {"week": WEEK - timedelta(days=7)}),
    ],
)
def test_database_refuses_what_must_never_be(constraint: str, change: dict[str, Any]) -> None:
    make_reader()
    Digest.objects.plan(WEEK - timedelta(days=7))
    plan_again = Digest.objects.plan(WEEK)

    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Digest.objects.filter(week=WEEK).update(**change)
    assert plan_again == 1


# --- What the mail server says ---


def test_send_chunk_uses_one_connection(smtp: Inbox) -> None:
    make_readers(60)
    make_news()
    plan()

    sent = digests.send_chunk(WEEK)

    assert (sent, len(smtp.received), len(smtp.clients)) == (60, 60, 1)


def test_send_chunk_goes_on_when_one_recipient_is_refused(smtp: Inbox) -> None:
    make_readers(3)
    make_news()
    plan()
    smtp.refused = {"reader0@example.com": "550 No such mailbox", "reader1@example.com": "450 Mailbox full"}

    sent = digests.send_chunk(WEEK)

    never, later, good = Digest.objects.order_by("person__email")
    assert (sent, len(smtp.received), good.mail_sent_at is not None) == (1, 1, True)
    assert (never.mail_error, never.mail_due_at) == ("550 No such mailbox", None)
    assert (later.mail_error, later.mail_due_at is None) == ("450 Mailbox full", False)


def test_digest_is_owed_since_its_week_began_whatever_attempts_moved() -> None:
    last_week = Digest(week=WEEK - timedelta(days=7), mail_due_at=timezone.now() + mail.LEASE)

    assert last_week.owed_for > timedelta(days=6)


@pytest.mark.parametrize("error", [mail.Disconnected("451 Not this one"), SoftTimeLimitExceeded()])
def test_digest_that_always_fails_does_not_stand_before_the_others(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_readers(5)
    make_news()
    plan()
    build, bad = emails.digest, Digest.objects.order_by("pk")[0]

    def fail(row: Digest, *rest: Any) -> Any:
        if row == bad:
            raise error
        return build(row, *rest)

    monkeypatch.setattr(emails, "digest", fail)
    with pytest.raises(type(error)):
        digests.send_chunk(WEEK)

    sent = digests.send_chunk(WEEK)

    assert (sent, Digest.objects.unsent().get()) == (4, bad)


def test_send_chunk_records_fifty_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    make_readers(120)
    make_news()
    plan()
    build, recorded = emails.digest, set()

    def count(*args: Any) -> Any:
        recorded.add(Digest.objects.filter(mail_sent_at__isnull=False).count())
        return build(*args)

    monkeypatch.setattr(emails, "digest", count)

    digests.send_chunk(WEEK)

    assert recorded == {0, 50, 100}


def test_send_chunk_records_what_went_out_and_gives_back_the_rest_when_the_server_hangs_up(smtp: Inbox) -> None:
    make_readers(5)
    make_news()
    plan()
    smtp.hung_up = {"reader3@example.com"}

    with pytest.raises(TemporaryError, match="The mail server does not answer"):
        digests.send_chunk(WEEK)
    recorded = Digest.objects.filter(mail_sent_at__isnull=False).count()
    smtp.hung_up = set()
    sent = digests.send_chunk(WEEK)

    assert (recorded, sent, len(smtp.received), Digest.objects.unsent().count()) == (3, 1, 4, 1)


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), OperationalError("The database is away")])
def test_send_chunk_records_what_went_out_and_gives_back_the_rest_when_it_is_cut_short(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_readers(5)
    make_news()
    plan()
    build = emails.digest
    built: list[Digest] = []

    def cut_short(row: Digest, *rest: Any) -> Any:
        if len(built) == 3:
            raise error
        built.append(row)
        return build(row, *rest)

    monkeypatch.setattr(emails, "digest", cut_short)

    with pytest.raises(type(error)):
        digests.send_chunk(WEEK)

    recorded = Digest.objects.filter(mail_sent_at__isnull=False).count()
    assert (len(recipients()), recorded, Digest.objects.mail_due().count()) == (3, 3, 1)


def test_send_chunk_gives_all_back_when_the_server_is_down(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    make_readers(3)
    make_news()
    plan()

    with pytest.raises(TemporaryError, match="The mail server does not answer"):
        digests.send_chunk(WEEK)

    assert Digest.objects.mail_due().count() == 3


def test_send_chunk_goes_on_when_an_address_can_be_no_address(smtp: Inbox) -> None:
    make_reader(email="a broken\naddress@example.com")
    make_readers(2)
    make_news()
    plan()

    sent = digests.send_chunk(WEEK)

    failed = Digest.objects.exclude(mail_error="").get()
    assert (sent, len(smtp.received), failed.mail_due_at) == (2, 2, None)


# --- Workers that overlap ---


@pytest.fixture
def in_threads() -> Callable[..., list[Any]]:
    """Run the function in so many threads at once, each with a database connection of its own."""

    def run(count: int, function: Callable[[], Any]) -> list[Any]:
        together = Barrier(count)

        def one() -> Any:
            try:
                together.wait(30)
                return function()
            finally:
                connection.close()

        with ThreadPoolExecutor(count) as pool:
            return [future.result() for future in [pool.submit(one) for _ in range(count)]]

    return run


@pytest.mark.django_db(transaction=True)
def test_workers_that_overlap_send_each_digest_once(
    in_threads: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "CHUNK", 7)
    make_readers(100)
    make_news()
    plan()

    def work() -> int:
        total = 0
        while sent := digests.send_chunk(WEEK):
            total += sent
        return total

    sent = in_threads(4, work)

    assert sum(sent) == len(recipients()) == len(set(recipients())) == 100
    assert sum(count > 0 for count in sent) > 1
    assert not Digest.objects.unsent().exists()


@pytest.mark.django_db(transaction=True)
def test_claim_passes_by_what_another_worker_is_about_to_take(in_threads: Callable[..., list[Any]]) -> None:
    make_readers(6)
    plan()

    with transaction.atomic():
        first = Digest.objects.claim_mail(limit=4)
        # It would wait here forever if it waited for locked rows: this transaction ends after it.
        [second] = in_threads(1, lambda: Digest.objects.claim_mail(limit=4))

    assert (len(first), len(second)) == (4, 2)
    assert not {row.pk for row in first} & {row.pk for row in second}


@pytest.mark.django_db(transaction=True)
def test_plans_that_overlap_write_each_row_once(in_threads: Callable[..., list[Any]]) -> None:
    make_readers(500)

    planned = in_threads(3, lambda: digests.plan(WEEK))

    assert (sum(planned), Digest.objects.count()) == (500, 500)


# --- In the office ---


@pytest.mark.parametrize(
    ("state", "fields", "outcome"),
    [
        ("sent", {"mail_sent_at": timezone.now()}, "Sent"),
        ("waiting", {}, "Waiting"),
        ("skipped", {"mail_due_at": None, "skip_reason": Skip.NOTHING}, "Nothing ordered and nothing new"),
        ("failed", {"mail_due_at": None, "mail_error": "550 No such mailbox"}, "550 No such mailbox"),
    ],
)
def test_staff_finds_digests_by_their_state(
    state: str, fields: dict[str, Any], outcome: str, login: Callable[[User], Client], staff: User
) -> None:
    make_reader()
    plan()
    Digest.objects.update(**fields)

    found = {
        asked: login(staff).get(f"/admin/orders/digest/?state={asked}").context["cl"].result_count
        for asked in ("sent", "waiting", "skipped", "failed")
    }

    assert found == dict.fromkeys(found, 0) | {state: 1}
    assert f'field-outcome">{outcome}<' in login(staff).get("/admin/orders/digest/").content.decode()


def test_dashboard_leads_staff_to_the_digests(login: Callable[[User], Client], staff: User, customer: User) -> None:
    pages = [login(person).get("/dashboard/").content.decode() for person in (staff, customer)]

    assert ['href="/admin/orders/digest/"' in page for page in pages] == [True, False]


# --- With real processes ---


def mails_to(shop: Shop, email: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.sandbox(f"/mail.json?to={email}")
    return found


def all_sent() -> bool:
    return not Digest.objects.unsent().exists() and Digest.objects.exists()


@pytest.mark.proves("orders.tasks.send_digest_emails", "orders.tasks.send_weekly_digest", "worker")
def test_worker_sends_each_reader_one_digest_when_it_is_told_twice(shop: Shop) -> None:
    readers = [make_reader(email=f"weekly{n}@example.com", name=f"Reader {n}") for n in range(3)]
    order = order_last_week(readers[0], make_old(name="Old lamp"))
    new = make_news(name="New loom")

    for result in [tasks.send_weekly_digest.delay() for _ in range(2)]:
        result.get(timeout=60)

    wait_for(all_sent, "the digests")
    found = [mails_to(shop, reader.email) for reader in readers]
    assert [len(mails) for mails in found] == [1, 1, 1]
    [first], [second], _ = found
    assert (order.reference in first["text"], order.reference in first["html"]) == (True, True)
    assert order.reference not in second["text"]
    assert [new.name in first[part] for part in ("text", "html")] == [True, True]
    with urlopen(f"{settings.SANDBOX_URL}/mail/{first['id']}", timeout=10) as page:
        html = page.read().decode()
    assert ("List-Unsubscribe" in html, "List-Unsubscribe=One-Click" in html) == (True, True)


@pytest.mark.proves("orders.tasks.check_unsent_digests", "worker")
def test_sweep_of_the_real_beat_finds_digests_whose_message_was_lost(shop: Shop) -> None:
    reader = make_reader(email="swept@example.com")
    make_news()

    plan()

    wait_for(all_sent, "the digest")
    assert len(mails_to(shop, reader.email)) == 1


def test_name_keeps_its_direction_to_itself_in_a_digest() -> None:
    verified(make_reader(name="مريم"))
    make_news(name="مصباح 3")
    plan()

    digests.send_chunk(WEEK)

    (message,) = outbox.outbox
    assert "Hello \u2068مريم\u2069," in message.body
    assert "\u2068مصباح 3\u2069, " in message.body
    assert "<bdi>مريم</bdi>" in html_of(message)
