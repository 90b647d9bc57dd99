"""A page shows an order and its events as they were at one moment."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.urls import reverse

from accounts.models import User
from tests.factories import place_order


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("page", ["orders:detail", "orders:status"])
def test_page_shows_no_event_of_a_status_that_it_does_not_show(page: str, login: Callable[[User], Client]) -> None:
    order = place_order()
    client = login(order.customer)
    cancelled: list[bool] = []

    def cancel_elsewhere() -> None:
        cancelled.append(order.mark_cancelled())
        connections.close_all()

    def cancel_in_between(execute: Any, sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        if 'FROM "orders_order"' in sql and not cancelled:
            thread = Thread(target=cancel_elsewhere)
            thread.start()
            thread.join()
        return result

    with connection.execute_wrapper(cancel_in_between):
        before = client.get(reverse(page, args=[order.reference])).content.decode()
    after = client.get(reverse(page, args=[order.reference])).content.decode()

    assert cancelled == [True]
    assert ("Order cancelled" in before, "Order cancelled" in after) == (False, True)
