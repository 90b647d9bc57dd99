"""Deleting an account: the person is forgotten, the books are kept."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import pytest
from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.contrib.messages import get_messages
from django.contrib.sessions.models import Session
from django.core import mail as outbox
from django.core.cache import cache
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import AccountMail, CrmContact, Erasure, Notification, User
from durable import mail
from durable.errors import PermanentError, TemporaryError
from orders import services as orders
from orders.models import Digest, Kind, Order, OrderEvent, Payment, PaymentStatus
from orders.models import Status as OrderStatus
from orders.tasks import send_order_confirmation
from reports import erasure, outcomes, packs, services, tasks
from reports.models import Kind as ReportKind
from reports.models import Pack, Report
from tests.broker import Broker
from tests.factories import (
    PASSWORD,
    claim,
    end,
    make_digest,
    make_erasure,
    make_export,
    make_mail,
    make_notification,
    make_pack,
    make_report,
    make_user,
    place_order,
    put,
)
from tests.shop import Shop, is_somebody_waiting, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
SURE = {"password": PASSWORD, "confirmation": "delete"}


@pytest.fixture(autouse=True)
def no_rate_limits() -> None:
    cache.clear()


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def alice() -> User:
    return make_user(name="Alice", email="alice@example.com")


def delete(client: Client, **fields: str) -> Any:
    seen = client.get("/people/delete/").context["shown"]
    return client.post("/people/delete/", SURE | {"seen": seen} | fields)


def run(person: User) -> None:
    """Run the task as a worker would, and pass over an error that it is to be tried again for."""
    tasks.erase_account.apply(kwargs={"user_id": person.pk})


def traces(word: str) -> list[str]:
    """Return the tables in which a row still holds the word."""
    tables = [table for table in connection.introspection.table_names() if not table.startswith("django_migrations")]
    found = []
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f'SELECT count(*) FROM "{table}" AS t WHERE t::text ILIKE %s', [f"%{word}%"])
            if cursor.fetchone() != (0,):
                found.append(table)
    return found


def files_of(report: Report) -> list[Path]:
    return list(Path(settings.MEDIA_ROOT, "reports").glob(f"{report.pk}*"))


def live(person: User) -> Order:
    """Leave in every table what a person leaves behind; return an order."""
    order = put(place_order(person), OrderStatus.COMPLETED)
    Order.objects.update(mail_due_at=timezone.now(), mail_error=f"450 {person.email} is greylisted")
    OrderEvent.objects.record([order.pk], Kind.REQUEUED, detail=f"by {person.name}")
    OrderEvent.objects.record([order.pk], Kind.REPLAYED, detail=f"with the same card, by {person.email}")
    EmailAddress.objects.create(user=person, email=person.email)
    make_mail(user=person, to=person.email, text=f"Hello {person.name}")
    make_notification(person, message=f"Dear {person.name}, it is done.")
    make_digest(person)
    kind = ContentType.objects.get_for_model(User)
    LogEntry.objects.create(
        user=person, content_type=kind, object_id=str(person.pk), object_repr=str(person), action_flag=CHANGE
    )
    person.groups.add(Group.objects.create(name="Clerks"))
    services.write_report(make_export(person))
    return order


# --- The click ---


def test_deletion_takes_the_person_out_of_the_row(login: Login, alice: User) -> None:
    answer = delete(login(alice))

    alice.refresh_from_db()
    assert answer["Location"] == "/"
    assert (alice.email, alice.name, alice.is_active) == (f"deleted-{alice.pk}@deleted.invalid", "", False)
    assert (alice.has_usable_password(), alice.deleted_at is not None, alice.mail_due_at) == (False, True, None)
    assert [str(m) for m in get_messages(answer.wsgi_request)] == [
        "Your account is deleted. We will confirm it by one last mail to alice@example.com."
    ]


def test_deletion_logs_out_everywhere_at_once(login: Login, alice: User) -> None:
    here, elsewhere = login(alice), login(alice)

    delete(here)

    assert [client.get("/dashboard/").status_code for client in (here, elsewhere)] == [302, 302]
    assert here.post("/accounts/login/", {"login": "alice@example.com", "password": PASSWORD}).status_code == 200
    assert here.get("/dashboard/").status_code == 302


@pytest.mark.django_db(transaction=True)
def test_deletion_queues_the_erasure(login: Login, alice: User, broker: Broker) -> None:
    delete(login(alice))

    assert broker.messages() == [("default", "reports.tasks.erase_account", {"user_id": alice.pk})]


@pytest.mark.django_db(transaction=True)
def test_deletion_works_when_the_broker_is_away(login: Login, alice: User, broker: Broker) -> None:
    broker.use("redis://127.0.0.1:1/0")

    answer = delete(login(alice))

    assert (answer["Location"], Erasure.objects.get().user) == ("/", alice)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"password": "wrong"}, "password", "Incorrect password."),
        ({"password": ""}, "password", "This field is required."),
        ({"confirmation": "no"}, "confirmation", "Please type the word “delete”."),
        ({"confirmation": ""}, "confirmation", "This field is required."),
    ],
)
def test_deletion_explains_what_is_missing(
    fields: dict[str, str], field: str, message: str, login: Login, alice: User
) -> None:
    answer = delete(login(alice), **fields)

    alice.refresh_from_db()
    assert (answer.status_code, answer.context["form"].errors) == (200, {field: [message]})
    assert (alice.email, alice.is_active, Erasure.objects.count()) == ("alice@example.com", True, 0)


def test_deletion_does_not_let_passwords_be_guessed(login: Login, alice: User) -> None:
    client = login(alice)
    for number in range(10):
        delete(client, password=f"wrong{number}")

    answer = delete(client)

    assert "Too many attempts" in answer.content.decode()
    assert User.objects.filter(pk=alice.pk, deleted_at=None).exists()


def test_deletion_needs_a_post_and_a_login(login: Login, alice: User) -> None:
    page = login(alice).get("/people/delete/")

    assert (page.status_code, Erasure.objects.count()) == (200, 0)
    assert Client().post("/people/delete/", SURE)["Location"].startswith("/accounts/login/")
    assert login(alice).delete("/people/delete/").status_code == 405


def test_deletion_page_makes_as_many_queries_for_three_orders_as_for_one(login: Login, alice: User) -> None:
    client, counts = login(alice), []
    for rows in (1, 2):
        for _ in range(rows):
            place_order(alice)
        with CaptureQueriesContext(connection) as queries:
            client.get("/people/delete/")
        counts.append(len(queries))

    assert counts[0] == counts[1]


# --- What has to end before ---


def want_refund(order: Order) -> None:
    put(order, OrderStatus.COMPLETED)
    Payment.objects.filter(order=order).update(status=PaymentStatus.SUCCEEDED, provider_id="pi_1")
    orders.want_refund(order, by="Sam")


@pytest.mark.parametrize(
    ("happen", "why"),
    [
        (lambda order: None, "is still pending"),
        (lambda order: put(order, OrderStatus.PROCESSING), "is still processing"),
        (want_refund, "is being refunded"),
        (
            lambda order: Order.objects.filter(pk=put(order, OrderStatus.COMPLETED).pk).flag("Wrong amount."),
            "is being looked into by our staff",
        ),
    ],
)
def test_deletion_waits_while_money_is_in_flight(
    happen: Callable[[Order], Any], why: str, login: Login, alice: User
) -> None:
    order = place_order(alice)
    happen(order)

    client = login(alice)
    pages = [client.get("/people/delete/"), delete(client)]

    assert [f"Order {order.reference} {why}." in page.content.decode() for page in pages] == [True, True]
    assert (User.objects.get(pk=alice.pk).email, Erasure.objects.count()) == ("alice@example.com", 0)


@pytest.mark.parametrize("status", [status for status in OrderStatus if status not in ("pending", "processing")])
def test_deletion_goes_on_when_all_is_over(status: OrderStatus, alice: User) -> None:
    put(place_order(alice), status)
    place_order()

    assert erasure.close_account(alice) is True


def test_only_administrator_stays(alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
    # Has all permissions, and comes to none of the pages.
    make_user(is_superuser=True)
    alice.refresh_from_db()

    with pytest.raises(erasure.Unsettled, match="only administrator"):
        erasure.close_account(alice)
    make_user(is_staff=True, is_superuser=True)
    assert erasure.close_account(alice) is True


# --- The task ---


def test_erasure_leaves_no_trace_and_keeps_the_books(login: Login, alice: User) -> None:
    order = live(alice)
    export = Report.objects.get()
    login(alice)
    stays = login(make_user())
    before = Order.objects.values_list("status", "total", "currency", "completed_at", "customer").get()
    paid = list(Payment.objects.values("amount", "card", "status"))

    erasure.close_account(alice)
    run(alice)

    assert [traces(word) for word in ("alice@example.com", "Alice")] == [[], []]
    assert (files_of(export), Report.objects.count(), Erasure.objects.count()) == ([], 0, 0)
    assert list(Session.objects.values_list("pk", flat=True)) == [stays.session.session_key]
    assert Order.objects.values_list("status", "total", "currency", "completed_at", "customer").get() == before
    assert list(Payment.objects.values("amount", "card", "status")) == paid
    assert list(order.events.exclude(kind=Kind.CONFIRMED).order_by("pk").values_list("detail", flat=True)) == [
        "",
        f"by deleted-{alice.pk}",
        f"with the same card, by deleted-{alice.pk}",
    ]
    assert (AccountMail.objects.count(), EmailAddress.objects.count(), alice.groups.count()) == (0, 0, 0)
    assert (Notification.objects.count(), Digest.objects.count()) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_erasure_has_the_crm_forget_the_person(alice: User, broker: Broker) -> None:
    erasure.close_account(alice)

    run(alice)

    assert CrmContact.objects.get().is_erased is True
    assert broker.messages() == [("default", "accounts.tasks.sync_user_to_crm", {"user_id": alice.pk})]


def test_deleted_person_gets_no_digest(alice: User) -> None:
    User.objects.update(wants_digest=True)

    erasure.close_account(alice)

    assert User.objects.get(pk=alice.pk).wants_digest is False


def test_erasure_confirms_what_was_bought_before_it_says_farewell(alice: User) -> None:
    order = live(alice)

    erasure.close_account(alice)
    run(alice)

    assert [(m.to, m.subject) for m in outbox.outbox] == [
        (["alice@example.com"], f"Your order {order.reference} is complete"),
        (["alice@example.com"], "Your account at Lantern & Loom is deleted"),
    ]
    assert "Alice" not in outbox.outbox[1].body
    assert Order.objects.mail_due().count() == 0


def test_confirmation_goes_to_the_address_from_before_the_account_was_deleted(alice: User) -> None:
    order = live(alice)
    erasure.close_account(alice)

    send_order_confirmation(order_id=order.pk)
    run(alice)

    assert [m.to for m in outbox.outbox] == [["alice@example.com"]] * 2
    assert traces("alice@example.com") == []


def test_confirmation_is_not_sent_to_nobody_when_the_address_is_forgotten(alice: User) -> None:
    order = live(alice)
    erasure.close_account(alice)
    Erasure.objects.all().delete()

    send_order_confirmation(order_id=order.pk)

    order.refresh_from_db()
    assert (outbox.outbox, order.mail_error, order.mail_due_at) == ([], "The account was deleted.", None)


@pytest.mark.proves("reports.tasks.erase_account", "twice", page="delete-account")
def test_erase_account_twice_is_once(alice: User) -> None:
    order = live(alice)
    closed = [erasure.close_account(alice) for _ in range(2)]
    email = User.objects.get(pk=alice.pk).email

    for _ in range(2):
        run(alice)

    assert (closed, len(outbox.outbox)) == ([True, False], 2)
    assert (User.objects.get(pk=alice.pk).email, order.events.count()) == (email, 4)


def test_erasure_finds_what_the_person_was_called_before(login: Login, staff: User, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
    order, office = place_order(), login(alice)
    office.post(f"{order.get_absolute_url()}nudge/")
    User.objects.filter(pk=alice.pk).update(name="Alison")
    Order.objects.filter(pk=order.pk).flag("Odd.")
    office.post(f"{order.get_absolute_url()}unflag/", {"seen": "Odd."})
    address, others = (
        EmailAddress.objects.create(user=person, email=f"{person.pk}@old.org") for person in (alice, staff)
    )
    kind = ContentType.objects.get_for_model(EmailAddress)
    for row in (address, others):
        LogEntry.objects.create(
            user=staff, content_type=kind, object_id=str(row.pk), object_repr=row.email, action_flag=CHANGE
        )
    address.delete()

    erasure.close_account(alice)
    run(alice)

    assert [traces(word) for word in ("Alice", "Alison", address.email)] == [[], [], []]
    details = order.events.exclude(detail="").order_by("pk").values_list("detail", flat=True)
    assert list(details) == [f"by deleted-{alice.pk}", "Odd.", f"by deleted-{alice.pk}"]
    assert LogEntry.objects.filter(object_repr=others.email).exists()


def test_erasure_leaves_other_people_alone(alice: User) -> None:
    bob = make_user(name="Ali", email="bob@example.com")
    report = make_report(bob)
    services.write_report(report)
    order = put(place_order(bob), OrderStatus.COMPLETED)
    for name in ("Alice Cooper", f"Ann (#1{alice.pk})"):
        OrderEvent.objects.record([order.pk], Kind.REQUEUED, detail=f"by {name}")
    make_mail(to="bob@example.com", user=bob)

    erasure.close_account(alice)
    run(alice)

    assert (len(files_of(report)), AccountMail.objects.count(), Erasure.objects.count()) == (1, 1, 0)
    assert order.events.filter(detail__in=["by Alice Cooper", f"by Ann (#1{alice.pk})"]).count() == 2


def test_erasure_removes_the_file_that_a_killed_worker_has_left(alice: User) -> None:
    export = make_export(alice)
    with patch.object(Report, "mark_ready", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        services.write_report(export)
    left = len(files_of(export))

    erasure.close_account(alice)
    run(alice)

    assert (left, files_of(export)) == (1, [])


def test_erasure_wins_over_an_export_that_is_being_written(alice: User) -> None:
    export = make_export(alice)
    export = claim(export, "one", status="running")
    erasure.close_account(alice)

    run(alice)
    published = services.write_report(export)

    assert (published, files_of(export)) == (False, [])


def listing(person: User, ago: int, **fields: Any) -> Report:
    """A list of the customers of one day, so many days ago."""
    day = timezone.localdate() - timedelta(days=ago)
    return make_report(person, kind=ReportKind.SALES_BY_CUSTOMER, start=day, end=day, **fields)


def pack_of(person: User) -> Pack:
    """This month's pack, of which only the list of customers could be made."""
    pack = make_pack(person, timezone.localdate().replace(day=1))
    for report in pack.members.all():
        if report.kind != ReportKind.SALES_BY_CUSTOMER:
            end(report, "No.")
        else:
            write(report)
    claimed: Pack = claim(pack, "task", status="bundling")
    return claimed


def write(report: Report) -> bool:
    return services.write_report(claim(report, "task", status="running"))


def files_with(word: str) -> list[Path]:
    files = [path for path in Path(settings.MEDIA_ROOT).rglob("*") if path.is_file()]
    return [path for path in files if path.suffix == ".zip" or word.encode() in path.read_bytes()]


def test_erasure_removes_the_lists_of_customers_that_name_the_person(media: Path, staff: User, alice: User) -> None:
    live(alice)
    lists = [listing(staff, ago) for ago in (0, -1, 1)]
    pack = pack_of(staff)
    for report in lists:
        write(report)
    packs.write_pack(pack)
    before = len(files_with("Alice")), "reports_report" in traces("Alice")

    erasure.close_account(alice)
    run(alice)

    # Her own data, the list of the day, the one whose day before it was, and the pack.
    assert before == (4, True)
    assert [traces(word) for word in ("alice@example.com", "Alice")] == [[], []]
    assert (files_with("Alice"), Erasure.objects.count()) == ([], 0)
    assert [Report.objects.get(pk=report.pk).status for report in lists] == ["expired", "expired", "ready"]
    assert Pack.objects.get().status == "expired"


@pytest.mark.parametrize("what", ["report", "pack"])
def test_erasure_waits_for_a_list_that_is_being_written(
    what: str, media: Path, staff: User, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(alice)
    row = listing(staff, 0) if what == "report" else pack_of(staff)
    ended = outcomes if what == "report" else packs
    finish = ended.finish

    def after_the_deletion(*args: Any, **kwargs: Any) -> bool:
        erasure.close_account(alice)
        run(alice)
        return finish(*args, **kwargs)

    monkeypatch.setattr(ended, "finish", after_the_deletion)
    published = write(row) if isinstance(row, Report) else packs.write_pack(row)
    between = Erasure.objects.filter(cleared_at=None).count(), len(outbox.outbox)
    run(alice)

    assert (published, between) == (True, (1, 0))
    assert (files_with("Alice"), traces("Alice"), len(outbox.outbox)) == ([], [], 2)


@pytest.mark.django_db(transaction=True)
def test_deletion_waits_for_a_checkout_of_the_same_moment(alice: User) -> None:
    def close() -> None:
        try:
            erasure.close_account(alice)
        except erasure.Unsettled as error:
            refused.extend(error.obstacles)
        finally:
            connection.close()

    refused: list[str] = []
    with transaction.atomic():
        order = place_order(alice)
        closing = Thread(target=close)
        closing.start()
        wait_for(is_somebody_waiting, "the deletion to wait for the checkout")
    closing.join()

    alice.refresh_from_db()
    assert (alice.is_active, refused) == (True, [f"Order {order.reference} is still pending."])


def test_order_that_was_placed_in_the_same_moment_is_cancelled(alice: User) -> None:
    erasure.close_account(alice)
    order = place_order(alice)

    run(alice)

    order.refresh_from_db()
    assert (order.status, order.reason) == (OrderStatus.CANCELLED, "The account was deleted.")


def test_address_is_kept_until_the_last_mail_is_sent(alice: User) -> None:
    live(alice)
    erasure.close_account(alice)
    with patch.object(mail, "send", side_effect=TemporaryError("421 busy")):
        run(alice)
    between = traces("alice@example.com")
    Erasure.objects.update(mail_due_at=timezone.now())
    run(alice)
    unconfirmed = traces("alice@example.com")
    Order.objects.update(mail_due_at=timezone.now())
    run(alice)

    assert between == unconfirmed == ["accounts_erasure"]
    assert (traces("alice@example.com"), len(outbox.outbox)) == ([], 2)


def test_address_is_forgotten_when_the_last_mail_is_refused(alice: User) -> None:
    erasure.close_account(alice)

    with patch.object(mail, "send", side_effect=PermanentError("550 unknown")):
        run(alice)

    assert traces("alice@example.com") == []


@pytest.mark.parametrize(("age", "left"), [(timedelta(days=2, hours=23), 1), (timedelta(days=3, minutes=1), 0)])
def test_address_is_forgotten_when_the_mail_server_is_away_for_days(
    age: timedelta, left: int, alice: User, settings: Any
) -> None:
    # Where no server listens.
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    erasure.close_account(alice)
    Erasure.objects.update(created_at=timezone.now() - age)

    run(alice)

    assert Erasure.objects.count() == left


def test_check_unfinished_erasures_queues_what_is_left(broker: Broker) -> None:
    owed = make_erasure()
    make_user()

    for _ in range(2):
        tasks.check_unfinished_erasures()

    assert broker.messages() == [("default", "reports.tasks.erase_account", {"user_id": owed.user_id})] * 2


@pytest.mark.proves("reports.tasks.check_unfinished_erasures", "twice")
def test_check_unfinished_erasures_twice_erases_once(broker: Broker) -> None:
    make_erasure()
    for _ in range(2):
        tasks.check_unfinished_erasures()

    for _, _, kwargs in broker.messages():
        tasks.erase_account.apply(kwargs=kwargs).get()

    assert (Erasure.objects.count(), len(outbox.outbox)) == (0, 1)


def test_database_refuses_an_active_person_who_is_deleted(alice: User) -> None:
    with pytest.raises(IntegrityError, match="user_deleted_is_inactive"), transaction.atomic():
        User.objects.update(deleted_at=timezone.now())


@pytest.mark.parametrize("address", ["deleted-{}@deleted.invalid", "Deleted-{}@DELETED.Invalid"])
def test_no_one_registers_the_address_that_a_deleted_account_needs(address: str, login: Login, alice: User) -> None:
    squatter = {"email": address.format(alice.pk), "password1": PASSWORD, "password2": PASSWORD}

    page = Client().post("/accounts/signup/", squatter)

    assert "No mail reaches this address." in page.content.decode()
    assert User.objects.count() == 1
    assert erasure.close_account(alice)


def test_database_refuses_the_address_of_a_deleted_account_to_others() -> None:
    with pytest.raises(IntegrityError, match="user_nowhere_is_deleted"):
        make_user(email="deleted-7@Deleted.invalid")


def test_address_is_free_to_register_again(login: Login, alice: User) -> None:
    delete(login(alice))
    run(alice)

    Client().post(
        "/accounts/signup/",
        {"email": "alice@example.com", "name": "Alice", "password1": PASSWORD, "password2": PASSWORD},
    )

    assert User.objects.filter(email="alice@example.com", is_active=True).count() == 1


@pytest.mark.parametrize("what", [{"email": "other@example.com"}, {"name": "Al"}, {}])
def test_page_deletes_nothing_when_it_has_said_something_else(
    what: dict[str, str], login: Login, staff: User, alice: User
) -> None:
    own, office = login(alice), login(staff)
    seen, listed = own.get("/people/delete/").context["shown"], act(office, alice).context["seen"]
    User.objects.filter(pk=alice.pk).update(**what or {"name": "Alice"})
    if not what:
        make_report(alice)

    answers = [delete(own, seen=seen), act(office, alice, seen=listed)]
    between = User.objects.get(pk=alice.pk).deleted_at
    delete(own)

    assert (between, [answer.status_code for answer in answers]) == (None, [200, 200])
    assert "has changed" in answers[0].content.decode()
    assert User.objects.get(pk=alice.pk).deleted_at is not None


# --- Staff ---


def act(client: Client, person: User, **fields: str) -> Any:
    data = {"action": "delete_accounts", "_selected_action": str(person.pk)}
    return client.post("/admin/accounts/user/", data | fields)


def test_staff_deletes_an_account_after_being_asked(login: Login, staff: User, alice: User) -> None:
    office = login(staff)

    asked = act(office, alice)
    between = User.objects.get(pk=alice.pk).deleted_at
    done = act(office, alice, seen=asked.context["seen"])

    assert (asked.status_code, "alice@example.com" in asked.content.decode(), between) == (200, True, None)
    assert User.objects.get(pk=alice.pk).deleted_at is not None
    assert [str(m) for m in get_messages(done.wsgi_request)] == ["Alice is deleted."]


def test_staff_is_told_why_an_account_stays(login: Login, staff: User, alice: User) -> None:
    order = place_order(alice)

    office = login(staff)
    answer = act(office, alice, seen=act(office, alice).context["seen"])

    assert [str(m) for m in get_messages(answer.wsgi_request)] == [
        f"Alice stays: Order {order.reference} is still pending."
    ]


def test_staff_does_not_change_who_is_gone(login: Login, staff: User) -> None:
    person = make_erasure().user

    answer = login(staff).post(f"/admin/accounts/user/{person.pk}/change/", {"email": "x@example.com"})

    assert answer.status_code == 403


def test_staff_cannot_delete_the_row_of_a_person_with_orders(login: Login, staff: User, alice: User) -> None:
    place_order(alice)

    answer = login(staff).post(f"/admin/accounts/user/{alice.pk}/delete/", {"post": "yes"})

    assert (User.objects.filter(pk=alice.pk).exists(), Order.objects.count()) == (True, 1)
    assert "Cannot delete user" in answer.content.decode()


# --- With the real processes ---


@pytest.mark.proves("reports.tasks.check_unfinished_erasures", "worker")
@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(400)
def test_account_is_erased_although_the_worker_is_killed(shop: Shop, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(email="alice-killed@example.com")
    alice.refresh_from_db()
    order = live(alice)
    erasure.close_account(alice)
    # Somebody holds the order, so that the worker stands still in the middle of its work.
    with transaction.atomic():
        Order.objects.select_for_update().get(pk=order.pk)
        wait_for(is_somebody_waiting, "a worker that waits for the order")
        shop.kill("worker")
        # Otherwise the database still does what the dead worker asked for: it may claim a mail, for two minutes.
        wait_for(lambda: not is_somebody_waiting(), "the database to notice that the worker is gone")
    left = Erasure.objects.filter(cleared_at=None).count()

    shop.heal()

    # Another process of the dead worker may have claimed one of the mails that were owed, for two minutes.
    wait_for(lambda: not Erasure.objects.exists(), "the end of the erasure", 180)
    subjects = [mail["subject"] for mail in shop.sandbox("/mail.json?to=alice-killed@example.com")]
    assert (left, traces("alice-killed@example.com"), Report.objects.count()) == (1, [], 0)
    assert subjects.count("Your account at Lantern & Loom is deleted") == 1


@pytest.mark.proves("reports.tasks.erase_account", "worker")
@pytest.mark.django_db(transaction=True)
def test_account_is_erased_by_the_worker(shop: Shop, login: Login, alice: User) -> None:
    order = live(alice)

    delete(login(alice))

    wait_for(lambda: not Erasure.objects.exists(), "the end of the erasure")
    assert traces("alice@example.com") == []
    assert json.dumps(list(order.events.values_list("detail", flat=True))).count("Alice") == 0
