"""A form of the admin that is sent twice is done once."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django_celery_beat.models import IntervalSchedule

from accounts.models import User

pytestmark = pytest.mark.django_db

Login = Callable[[User], Client]
PAGE = "/admin/django_celery_beat/intervalschedule/add/"
FIELDS = {"every": "7", "period": "days", "periodictask_set-TOTAL_FORMS": "0", "periodictask_set-INITIAL_FORMS": "0"}


@pytest.fixture
def office(staff: User, login: Login) -> Client:
    cache.clear()
    return login(staff)


def form(office: Client, **fields: Any) -> dict[str, Any]:
    """Return the form of a page that is shown now, filled in."""
    return {**FIELDS, **fields, "csrfmiddlewaretoken": str(office.get(PAGE).context["csrf_token"])}


def rows() -> tuple[int, int]:
    return IntervalSchedule.objects.count(), LogEntry.objects.count()


def test_form_that_is_sent_again_is_done_once_and_leads_to_the_same_page(office: Client) -> None:
    fields = form(office)

    first, second = office.post(PAGE, fields), office.post(PAGE, fields, follow=True)

    assert first.headers["Location"] == second.redirect_chain[0][0]
    assert "This form had been sent already." in second.content.decode()
    assert rows() == (1, 1)


def test_popup_that_is_sent_again_tells_its_page_the_same(office: Client) -> None:
    fields = form(office, _popup="1")

    first, second = office.post(PAGE, fields), office.post(PAGE, fields)

    assert first.content == second.content
    assert rows() == (1, 1)


def test_other_words_another_file_or_another_page_are_another_form(office: Client) -> None:
    fields = form(office)
    files = [SimpleUploadedFile("x.csv", text) for text in (b"1", b"2")]

    sent = [fields, fields | {"every": "8"}, form(office), *(fields | {"file": file} for file in files)]

    assert [office.post(PAGE, each).status_code for each in sent] == [302] * 5
    assert rows() == (5, 5)


def test_form_that_was_refused_may_be_sent_again(office: Client) -> None:
    fields = form(office, every="x")

    assert [office.post(PAGE, fields).status_code for _ in range(2)] == [200, 200]
    assert rows() == (0, 0)


def test_program_that_has_not_opened_the_form_means_each_one(office: Client) -> None:
    assert [office.post(PAGE, FIELDS).status_code for _ in range(2)] == [302, 302]
    assert rows() == (2, 2)


def test_same_form_of_another_person_is_another(office: Client, staff: User, login: Login) -> None:
    other = User.objects.create(email="other@example.com", is_staff=True, is_superuser=True)
    fields = form(office)

    assert [client.post(PAGE, fields).status_code for client in (office, login(other))] == [302, 302]
    assert rows() == (2, 2)
