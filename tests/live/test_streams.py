"""The process `live`, as pages see it: who may listen, to what, and what happens when a part of it dies."""

import http.client
import re
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import time_machine
from django.contrib.auth.models import Group, Permission
from django.core import signing
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from accounts import services
from accounts.models import User
from myproject.live import tokens
from myproject.live.hub import MOST_OF_ONE
from orders.models import Order
from tests.factories import PASSWORD, make_user, place_order
from tests.live.process import Page, live
from tests.ports import free_port
from tests.running import running
from tests.shop import answers, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def started(django_db_setup: None) -> Iterator[str]:
    with live() as found:
        yield found


@pytest.fixture
def address(started: str, transactional_db: None) -> str:
    return started


def channel(order: Order) -> tuple[object, ...]:
    return ("orders", order.customer_id, order.pk)


def status_of(address: str, query: str) -> int:
    link = http.client.HTTPConnection(address, timeout=20)
    link.request("GET", f"/live/?{query}")
    status = link.getresponse().status
    link.close()
    return status


def test_page_hears_what_was_committed_and_nothing_that_was_rolled_back(address: str) -> None:
    order, other = place_order(), place_order()

    with Page(address, channel(other), channel(order)) as page:
        with transaction.atomic():
            other.mark_cancelled()
            transaction.set_rollback(True)
        order.mark_cancelled()

        assert page.news() == "1"


def test_page_hears_nothing_of_another_person_or_another_order(address: str) -> None:
    order, others = place_order(), place_order()
    second = place_order(order.customer)

    with Page(address, channel(order)) as page, Page(address, ("orders", order.customer_id)) as listing:
        others.mark_cancelled()
        second.mark_cancelled()
        first = listing.news()
        order.mark_cancelled()

        # The first thing that it hears is its own.
        assert (first, page.news(), listing.news()) == ("0", "0", "0")


def test_staff_hears_of_all_orders(address: str) -> None:
    with Page(address, ("orders",)) as page:
        place_order()

        assert page.news() == "0"


def test_numbers_that_begin_alike_are_not_the_same(address: str) -> None:
    order = place_order()

    with Page(address, ("orders", f"{order.customer_id}1"), ("orders", order.customer_id)) as page:
        order.mark_cancelled()

        assert page.news() == "1"


@pytest.mark.parametrize("query", ["", "t=", "t=nonsense", "t=WzEsMl0:1abcde:forged", "x=1"])
def test_stream_needs_a_genuine_token(query: str, address: str) -> None:
    assert status_of(address, query) == 403


def test_one_forged_token_among_others_opens_nothing(address: str) -> None:
    genuine = quote(tokens.sign(1, "orders", 1))

    assert status_of(address, f"t={genuine}&t={genuine}x") == 403


def test_token_is_good_for_ten_minutes(address: str) -> None:
    with time_machine.travel(timezone.now() - timedelta(seconds=tokens.SECONDS + 5)):
        old = tokens.sign(1, "orders", 1)

    assert status_of(address, f"t={quote(old)}") == 403


def test_token_of_another_purpose_is_none(address: str) -> None:
    assert status_of(address, f"t={quote(signing.dumps(['1', 'orders'], salt='other'))}") == 403


def test_one_person_has_a_limit_and_others_do_not_feel_it(address: str) -> None:
    # Nobody of the other tests.
    eager, other = 77, 78
    pages = [Page(address, ("orders", 1), person=eager) for _ in range(MOST_OF_ONE)]

    statuses = (Page(address, ("orders", 1), person=eager).status, Page(address, ("orders", 2), person=other).status)
    pages.pop().close()

    assert statuses == (429, 200)
    wait_for(lambda: Page(address, ("orders", 1), person=eager).status == 200, "the place of the page that has left")


def sign_out(person: User) -> None:
    browser = Client()
    browser.force_login(person)
    browser.post("/accounts/logout/")


def give_rights(person: User) -> None:
    person.groups.add(group := Group.objects.create(name="Clerks"))
    for holder in (person.user_permissions, group.permissions):
        holder.add(Permission.objects.get(codename="view_order"))


ENDS: dict[str, Callable[[User], Any]] = {
    "signs out": sign_out,
    "is switched off": lambda person: User.objects.filter(pk=person.pk).update(is_active=False),
    "is no staff any more": lambda person: User.objects.filter(pk=person.pk).update(is_staff=False),
    "has another password": lambda person: User.objects.filter(pk=person.pk).update(password="!"),
    "leaves a group": lambda person: person.groups.clear(),
    "loses a permission": lambda person: person.user_permissions.clear(),
    "is in a group that loses one": lambda person: Group.objects.get().permissions.clear(),
    "is in a group that goes": lambda person: Group.objects.all().delete(),
    "closes the account": services.anonymise,
}


@pytest.mark.parametrize("what", ENDS)
def test_stream_ends_when_its_person(what: str, address: str) -> None:
    person, other = make_user(is_staff=True), make_user()
    give_rights(person)
    token = tokens.sign(person.pk, "orders")

    with Page(address, ("orders",), person=person.pk) as page, Page(address, ("orders",), person=other.pk) as others:
        ENDS[what](person)
        # Before its end there may be one more beat.
        ended = "" in [page.event() for _ in range(2)]
        place_order()
        heard = others.news()

    assert (ended, heard, status_of(address, f"t={quote(token)}")) == (True, "0", 403)


def test_stream_goes_on_when_its_person_signs_in_or_is_given_more(address: str) -> None:
    person = make_user()

    with Page(address, ("orders",), person=person.pk) as page:
        Client().post("/accounts/login/", {"login": person.email, "password": PASSWORD})
        User.objects.filter(pk=person.pk).update(name="Ann")
        give_rights(person)
        place_order()

        assert page.news() == "0"


def test_tokens_of_before_the_process_has_heard_anything_are_refused(transactional_db: None) -> None:
    with time_machine.travel(timezone.now() - timedelta(seconds=5)):
        old = tokens.sign(1, "orders", 1)

    with live() as address:
        assert status_of(address, f"t={quote(old)}") == 403
        assert Page(address, ("orders", 1)).status == 200


def test_no_proxy_may_keep_or_hold_back_what_is_sent(address: str) -> None:
    with Page(address, ("orders", 1)) as page:
        headers = page.answer.headers

    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"


def test_streams_end_with_the_connection_to_the_database_and_come_back(address: str) -> None:
    order = place_order()
    with Page(address, channel(order)) as page:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'live'")

        # The page then polls, until push answers again.
        assert "" in iter(page.event, None)

    wait_for(lambda: Page(address, channel(order)).status == 200, "another connection")
    with Page(address, channel(order)) as page:
        order.mark_cancelled()

        assert page.news() == "0"


def test_without_a_database_it_lives_and_is_not_ready() -> None:
    address = f"127.0.0.1:{free_port()}"
    nowhere = f"postgres://shop@127.0.0.1:{free_port()}/shop"

    with running("python -m myproject.live", LIVE_BIND=address, LIVE_DATABASE_URL=nowhere):
        wait_for(lambda: answers(f"http://{address}/healthz/live"), "push")

        assert not answers(f"http://{address}/healthz/ready")
        assert status_of(address, f"t={quote(tokens.sign(1, 'orders', 1))}") == 503


def test_process_that_is_told_to_stop_ends_its_streams_and_leaves_at_once() -> None:
    address = f"127.0.0.1:{free_port()}"
    with running("python -m myproject.live", LIVE_BIND=address) as process:
        wait_for(lambda: answers(f"http://{address}/healthz/ready"), "push")
        page = Page(address, ("orders", 1))

        process.send_signal(signal.SIGTERM)

        assert "" in iter(page.event, None)
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_prometheus_sees_open_pages_news_and_pushes() -> None:
    order = place_order()

    with live(METRICS_TOKEN="secret") as address, Page(address, channel(order)) as page:
        order.mark_cancelled()
        page.news()
        status_of(address, "t=forged")
        counted = metrics_of(address, "secret")
        with pytest.raises(HTTPError, match="401"):
            metrics_of(address, "another")

    assert "shop_live_streams 1.0" in counted
    assert "shop_live_hears 1.0" in counted
    assert "shop_live_pushes_total 1.0" in counted
    assert 'shop_live_refused_total{reason="token"} 1.0' in counted
    assert re.search(r"shop_live_news_total [1-9]", counted)


def metrics_of(address: str, token: str) -> str:
    wanted = Request(f"http://{address}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urlopen(wanted, timeout=20) as answer:
        return str(answer.read().decode())
