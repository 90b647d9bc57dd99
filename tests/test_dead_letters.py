"""What becomes of messages that cannot be tasks, once a worker has refused them; tests/attack tries the worker."""

import json
from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import User
from myproject.alerting import dead_letters, models
from myproject.alerting.models import Alert, DeadLetter
from myproject.transport.envelope import MAX_BYTES, Kind, Refusal, Unfit, check_envelope
from tests.broker import Broker
from tests.factories import make_user

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db

LIST = reverse("admin:myproject_deadletter_changelist")
WHOLE = {
    "body": "W1tdLCB7fSwge31d",
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {"task": "orders.tasks.of_tomorrow", "id": "1"},
    "properties": {"correlation_id": "1", "reply_to": None, "delivery_mode": 2, "priority": 0},
}


def refusal(kind: Kind = Kind.UNKNOWN, raw: bytes = json.dumps(WHOLE).encode()) -> Refusal:
    return Refusal(kind, "orders", "orders.tasks.of_tomorrow", "this release has no such task", raw, len(raw))


def member(*permissions: str) -> User:
    person = make_user(name="Sam", is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return person


def send_again(client: Client, letter: DeadLetter) -> None:
    client.post(LIST, {"action": "send_again", "_selected_action": [letter.pk]})


def test_letters_are_kept_once_and_told_once_for_each_kind() -> None:
    dead_letters.bury([refusal(), refusal(), refusal(Kind.MALFORMED), refusal(raw=b"other")])
    dead_letters.bury([refusal()])

    kept = DeadLetter.objects.order_by("count").values_list("kind", "count")
    assert sorted(kept) == [("malformed", 1), ("unknown task", 1), ("unknown task", 3)]
    told = Alert.objects.order_by("cause").values_list("cause", "count")
    assert list(told) == [("dead letter, malformed", 1), ("dead letter, unknown task", 4)]


def test_no_more_letters_are_kept_than_a_table_should_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_LETTERS", 2)

    dead_letters.bury([refusal(raw=bytes([number])) for number in range(5)])

    assert DeadLetter.objects.count() == 2
    assert Alert.objects.get().count == 5


def test_staff_sends_again_what_a_new_release_knows(broker: Broker, login: Callable[[User], Client]) -> None:
    dead_letters.bury([refusal()])

    send_again(login(member("view_deadletter", "resend_deadletter")), DeadLetter.objects.get())

    assert broker.messages() == [("orders", "orders.tasks.of_tomorrow", {})]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.UNKNOWN])
def test_what_is_no_task_is_not_sent_again(kind: Kind, broker: Broker, login: Callable[[User], Client]) -> None:
    dead_letters.bury([refusal(kind)])

    send_again(login(member("view_deadletter", "resend_deadletter")), DeadLetter.objects.get())

    assert broker.messages() == []
    assert DeadLetter.objects.exists()


def test_permissions_decide_who_does_what(broker: Broker, login: Callable[[User], Client]) -> None:
    dead_letters.bury([refusal()])
    letter = DeadLetter.objects.get()
    download = reverse("admin:myproject_deadletter_download", args=[letter.pk])
    delete = reverse("admin:myproject_deadletter_delete", args=[letter.pk])
    nobody, reader = login(member()), login(member("view_deadletter"))

    send_again(reader, letter)

    assert [nobody.get(page).status_code for page in (LIST, download, delete)] == [403, 403, 403]
    assert [reader.get(page).status_code for page in (LIST, download, delete)] == [200, 200, 403]
    assert reader.get(download).content == bytes(letter.raw)
    assert broker.messages() == []
    assert login(member("view_deadletter", "delete_deadletter")).get(delete).status_code == 200


def test_message_that_is_too_long_is_not_even_read() -> None:
    with pytest.raises(Unfit, match="bytes long"):
        check_envelope(b"[" * (MAX_BYTES + 1), "orders")
