"""What may be stored of other people's texts, and what comes out again: over all of Unicode."""

import csv
import io
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myproject import texts

ALL = "".join(map(chr, range(sys.maxunicode + 1)))
# Half of the letters are of the dangerous kinds.
DANGEROUS = "=+-@＝＋－＠'\"; ,\t\r\n\v\f\0\x1b\x85\u2028\u200b\u200d\u202e\u2066\ufffe\U000e0041\U0001f3f4e\u0301"
ANY = st.text(st.one_of(st.characters(), st.sampled_from(DANGEROUS)))


def is_taken(letter: str) -> bool:
    try:
        return texts.clean_words(f"a{letter}b") == unicodedata.normalize("NFC", f"a{letter}b")
    except texts.Unprintable:
        return False


def test_all_that_can_be_shown_is_taken_and_nothing_else() -> None:
    shown = "".join(
        letter for letter in ALL if unicodedata.category(letter)[0] in "LMNPS" and letter not in texts.UNSEEN
    )

    assert [hex(ord(letter)) for letter in shown if not is_taken(letter)] == []
    others = {letter for letter in ALL if is_taken(letter)} - set(shown)
    assert {unicodedata.category(letter) for letter in others} == {"Zs", "Cf", "Co", "Cn"}
    assert {letter for letter in others if unicodedata.category(letter) == "Zs"} == {" "}
    assert all(texts.KEPT.match(letter) for letter in others if unicodedata.category(letter) == "Cf")


@given(ANY)
def test_clean_text_is_clean_for_good(text: str) -> None:
    for clean in (texts.clean_words, texts.clean_text):
        try:
            once = clean(text)
        except texts.Unprintable:
            continue
        assert clean(once) == once
        assert texts.show(once.replace("\n", "").replace("\t", "")) == once.replace("\n", "").replace("\t", "")


@given(ANY)
def test_cell_of_csv_begins_no_formula_whatever_separates_cells(text: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([texts.csv_cell(text), "end"])

    lines = file.getvalue().replace("\r", "\n").split("\n")
    cells = [cell.lstrip('"') for mark in ",;\t" for row in csv.reader(lines, delimiter=mark) for cell in row]
    assert [cell for cell in cells if cell.startswith(tuple("=+-@＝＋－＠"))] == []


@given(ANY)
def test_words_come_back_from_a_csv_file_as_they_were(text: str) -> None:
    try:
        words = texts.clean_words(text)
    except texts.Unprintable:
        return

    if not texts.FORMULA.search(words, 1):
        assert texts.from_csv_cell(texts.csv_cell(words)) == words


@pytest.mark.parametrize("text", ["A\x1b[31mred", "a\0b", "\ud800", "\ufffe", "\U0001ffff"])
def test_what_cannot_be_shown_is_refused_with_its_number(text: str) -> None:
    with pytest.raises(texts.Unprintable, match=r"U\+[0-9A-F]{4}"):
        texts.clean_words(text)
