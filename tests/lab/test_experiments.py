"""Each claim of the lab, seen: the tutorials' way fails as it is told, and ours holds."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import connection

from lab import results
from lab.arena import Arena
from lab.experiments import EXPERIMENTS
from myproject import embedded

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def arena(servers: tuple[embedded.Postgres, embedded.Server], django_db_setup: None) -> Iterator[Arena]:
    with Arena(settings.VAR_DIR, servers[1]) as arena:
        yield arena


@pytest.fixture
def lab(arena: Arena, transactional_db: None) -> Iterator[Arena]:
    cache.clear()
    yield arena
    # Workers may still be at it: the end of the test empties the tables.
    connection.close()


@pytest.mark.parametrize("side", ["naive", "ours"])
@pytest.mark.parametrize("slug", EXPERIMENTS)
def test_experiment_shows_what_it_tells(slug: str, side: str, lab: Arena, record_property: Any) -> None:
    chosen = EXPERIMENTS[slug].sides[side]
    lab.begin()

    numbers = chosen.run(lab)

    assert chosen.broken(numbers) == [], lab.steps
    results.note(slug, side, lab)
