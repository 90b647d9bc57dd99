"""A few of all texts through each door and out of each writer; many more are tried by `make faults`."""

import pytest
from hypothesis import HealthCheck, example, given, settings

from reports.models import Format, Kind
from tests.all_texts import SAID, STORED, Shop, undone
from tests.reports.test_formats import written

pytestmark = [pytest.mark.django_db, pytest.mark.properties]

FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
WORD_S_BREAK = "Lamps\vand\x07 \ufffemore"


@pytest.fixture
def shop_of_texts(db: None) -> Shop:
    return Shop()


@FEW
@given(text=STORED)
@example(text=WORD_S_BREAK)
def test_stored_text_comes_out_of_each_writer_as_it_is(text: str, shop_of_texts: Shop) -> None:
    with undone():
        shop_of_texts.store(text)

        shop_of_texts.leave(text, written)


@pytest.mark.parametrize("text", [WORD_S_BREAK, "=1+1 提灯 \U0001f469\u200d\U0001f467 <&> \u202eכ"])
def test_stored_text_stops_no_pdf(text: str, shop_of_texts: Shop) -> None:
    shop_of_texts.store(text)

    assert written(Kind.SALES_BY_CATEGORY, Format.PDF).read(5) == b"%PDF-"


@FEW
@given(text=STORED)
@example(text=WORD_S_BREAK)
def test_text_is_taken_or_refused_at_each_door(text: str, shop_of_texts: Shop) -> None:
    with undone():
        shop_of_texts.pass_doors(text)


@FEW
@given(text=SAID)
@example(text="a\0b\ud800")
def test_text_of_a_script_is_taken_or_refused(text: str, shop_of_texts: Shop) -> None:
    with undone():
        shop_of_texts.script(text)
