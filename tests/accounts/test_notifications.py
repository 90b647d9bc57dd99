"""Notices to a person: the row that owes the mail, the task that sends it, the sweep that finds it."""

import pytest
from django.conf import settings
from django.core import mail as outbox
from django.db import transaction

from accounts import emails, services, tasks
from accounts.models import Notification, User
from tests.broker import Broker
from tests.factories import make_notification, make_user
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db


def send(person: User) -> None:
    tasks.send_notification_email.apply(kwargs={"user_id": person.pk}).get()


def test_notify_owes_the_mail_and_sends_nothing(broker: Broker) -> None:
    person = make_user()

    row = services.notify(person, "Your report is ready", "It took a while.", url="/reports/")

    assert list(Notification.objects.mail_due()) == [row]
    assert (row.person, row.subject, row.message, row.url) == (
        person,
        "Your report is ready",
        "It took a while.",
        "/reports/",
    )
    assert (broker.messages(), outbox.outbox) == ([], [])


def test_notify_is_undone_with_its_transaction() -> None:
    person = make_user()

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        services.notify(person, str(1 / 0), "")

    assert Notification.objects.count() == 0


def test_notify_keeps_the_lines_of_a_message() -> None:
    row = services.notify(make_user(), "Two\nlines", "One\0.\r\n\nTwo.")

    assert (row.subject, row.message) == ("Two lines", "One·.\n\nTwo.")


def test_notify_cuts_a_subject_that_is_too_long() -> None:
    assert len(make_notification(subject="x" * 300).subject) == 200


@pytest.mark.proves("accounts.tasks.send_notification_email", "twice", page="admin:accounts_notification_changelist")
def test_send_notification_email_twice_is_once() -> None:
    row = make_notification()

    for _ in range(2):
        send(row.person)

    row.refresh_from_db()
    assert [(message.to, message.subject) for message in outbox.outbox] == [([row.person.email], row.subject)]
    assert row.mail_sent_at is not None


def test_send_notification_email_sends_all_notices_of_one_person() -> None:
    person = make_user()
    for number in range(3):
        make_notification(person, subject=f"Notice {number}")
    other = make_notification()

    send(person)

    assert [message.subject for message in outbox.outbox] == ["Notice 0", "Notice 1", "Notice 2"]
    assert list(Notification.objects.mail_due()) == [other]


@pytest.mark.parametrize(
    ("url", "link"),
    [("/orders/", f"{settings.SITE_URL}/orders/"), ("https://elsewhere.example/a", "https://elsewhere.example/a")],
    ids=["path", "address"],
)
def test_notification_leads_to_its_page(url: str, link: str) -> None:
    message = emails.notification(make_notification(url=url))

    assert f"\n{link}\n" in message.body
    assert f'href="{link}"' in str(message.alternatives[0][0])


def test_notification_has_no_link_when_it_leads_nowhere() -> None:
    message = emails.notification(make_notification(subject="A\nB", message="1 < 2", url=""))

    assert (message.subject, "1 < 2" in message.body) == ("A B", True)
    assert ("href" in str(message.alternatives[0][0]), "1 &lt; 2" in str(message.alternatives[0][0])) == (False, True)


def test_check_unsent_mail_queues_each_person_once(broker: Broker) -> None:
    person = make_user()
    for _ in range(2):
        make_notification(person)
    send(make_notification().person)

    tasks.check_unsent_mail()

    assert broker.messages() == [("mail", "accounts.tasks.send_notification_email", {"user_id": person.pk})]


@pytest.mark.proves("accounts.tasks.send_notification_email", "worker")
@pytest.mark.django_db(transaction=True)
def test_worker_sends_a_notice_whose_message_was_lost(shop: Shop) -> None:
    row = make_notification(subject="From a worker")

    mails = wait_for(lambda: shop.sandbox(f"/mail.json?to={row.person.email}"), "the notice")

    wait_for(lambda: Notification.objects.filter(mail_sent_at__isnull=False).exists(), "its record")
    assert [mail["subject"] for mail in mails] == ["From a worker"]
