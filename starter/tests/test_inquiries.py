from typing import Any
from unittest.mock import patch

import pytest
from django.core import mail
from django.test import Client
from kombu.exceptions import OperationalError

from inquiries import tasks
from inquiries.models import Inquiry, Status


@pytest.fixture(autouse=True)
def fast(settings: Any) -> None:
    settings.INQUIRY_SECONDS = 0


@pytest.fixture
def inquiry(person: Any) -> Inquiry:
    return Inquiry.objects.create(person=person, text="Who is there?", **Inquiry.lease.fresh())


def test_page_takes_a_question_although_the_broker_is_away(person: Any, client: Client) -> None:
    client.force_login(person)

    with patch.object(tasks.answer_inquiry, "apply_async", side_effect=OperationalError("away")):
        answer = client.post("/", {"text": "Who is there?"}, follow=True)

    assert answer.status_code == 200
    assert Inquiry.objects.get().status == Status.PENDING


def test_answer_inquiry_twice_is_once(inquiry: Inquiry) -> None:
    with patch.object(tasks.send_answer, "apply_async") as send:
        for _ in range(2):
            tasks.answer_inquiry.apply(kwargs={"inquiry_id": inquiry.pk})

    inquiry.refresh_from_db()
    assert (inquiry.status, inquiry.attempts) == (Status.ANSWERED, 1)
    assert inquiry.answer == "Your question has 3 words."
    assert send.call_count <= 1


def test_send_answer_twice_is_one_mail(inquiry: Inquiry) -> None:
    tasks.answer_inquiry.apply(kwargs={"inquiry_id": inquiry.pk})

    for _ in range(2):
        tasks.send_answer.apply(kwargs={"inquiry_id": inquiry.pk})

    assert [message.to for message in mail.outbox] == [["reader@example.com"]]


def test_admin_lists_inquiries(inquiry: Inquiry, admin_client: Client) -> None:
    answer = admin_client.get("/admin/inquiries/inquiry/")

    assert answer.status_code == 200
    assert b"reader" in answer.content
