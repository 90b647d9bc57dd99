"""Many of all texts through each door and out of each writer."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.all_texts import SAID, STORED, Shop, undone
from tests.reports.test_formats import written

pytestmark = [pytest.mark.django_db, pytest.mark.faults, pytest.mark.timeout(900)]

MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def shop_of_texts(db: None) -> Shop:
    return Shop()


@MANY
@given(text=STORED)
def test_stored_text_comes_out_of_each_writer_as_it_is(text: str, shop_of_texts: Shop) -> None:
    """Any text comes out of page, mail, CSV, XLSX, PDF and log as it was stored."""
    with undone():
        shop_of_texts.store(text)

        shop_of_texts.leave(text, written)


@MANY
@given(text=STORED)
def test_text_is_taken_or_refused_at_each_door(text: str, shop_of_texts: Shop) -> None:
    """Any text is taken or refused at each door, and never breaks it."""
    with undone():
        shop_of_texts.pass_doors(text)


@MANY
@given(text=SAID)
def test_text_of_a_script_is_taken_or_refused(text: str, shop_of_texts: Shop) -> None:
    """Any text that a script sends is taken or refused."""
    with undone():
        shop_of_texts.script(text)
