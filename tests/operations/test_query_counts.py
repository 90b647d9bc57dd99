"""No page asks the database much."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.attack.addresses import addresses, client_of, make_person

# Hundreds of pages: too many for `make test`.
pytestmark = [pytest.mark.operations, pytest.mark.django_db, pytest.mark.timeout(600)]

# Those of the session, the person and what they may do included.
MOST = 12
# Reads each table that points at a person, to say what would go with them.
MORE = {"admin/accounts/user/<path:object_id>/delete/": 26}


def count(browser: Callable[[], Client], address: str) -> int:
    """Return the number of statements behind a page, without those of its transactions."""
    with CaptureQueriesContext(connection) as queries:
        browser().get(address)
    return sum(not query["sql"].startswith(("SAVEPOINT", "RELEASE")) for query in queries.captured_queries)


def test_no_page_makes_more_than_twelve_queries() -> None:
    people = {role: make_person(role) for role in ("visitor", "customer", "support", "administrator")}
    pages, browsers = addresses(people["administrator"]), {role: client_of(person) for role, person in people.items()}

    counts = {(role, page): count(browsers[role], pages[page]) for role in browsers for page in pages}

    assert {key: found for key, found in counts.items() if found > MORE.get(key[1], MOST)} == {}
