"""What may be stored of other people's texts, and what comes out again: over all of Unicode."""

import csv
import io
import sys
import unicodedata
from collections.abc import Callable

import pytest
from django.db import connection
from hypothesis import example, given
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

    taken = set(filter(is_taken, ALL))
    others = taken - set(shown)

    assert [hex(ord(letter)) for letter in shown if letter not in taken] == []
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


@pytest.mark.parametrize("clean", [texts.clean_words, texts.clean_text])
def test_all_kinds_of_space_around_a_text_are_dropped(clean: Callable[[str], str]) -> None:
    # As forms do, before they ask.
    assert [hex(ord(space)) for space in ALL if space.isspace() and clean(f"{space}a{space}") != "a"] == []


@given(ANY)
@example("=1+1")
@example("a\t@b")
@example('a;"-1')
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


@pytest.mark.django_db
def test_python_and_database_have_one_upper_case() -> None:
    """Whatever the database's locale is, and whatever `str.upper` makes of ß, ŉ and ᾳ."""
    # What is no letter of anybody's has no other case; PostgreSQL refuses a NUL and halves of a pair.
    letters = [letter for letter in ALL if unicodedata.category(letter) not in ("Cc", "Cn", "Co", "Cs")]

    with connection.cursor() as cursor:
        sql = "SELECT translate(letter, %s, %s) FROM unnest(%s::text[]) WITH ORDINALITY AS a (letter, n) ORDER BY n"
        cursor.execute(sql, [texts.SMALL, texts.CAPITAL, letters])
        theirs = [found for (found,) in cursor.fetchall()]

    assert theirs == [texts.in_capitals(letter) for letter in letters]
    assert (len(texts.SMALL), texts.in_capitals("straße-ıäλдạ")) == (len(texts.CAPITAL), "STRAßE-IÄΛДẠ")


@pytest.mark.django_db
def test_check_warns_of_a_database_that_knows_no_letters_but_those_of_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    here = texts.check_letters(databases=["default"])
    monkeypatch.setattr(texts, "ASK_FOR_LETTERS", """SELECT upper('я' COLLATE "C") = 'Я'""")

    [warning] = texts.check_letters(databases=["default"])

    assert (here, warning.id, texts.check_letters()) == ([], "myproject.W001", [])


@pytest.mark.parametrize("text", ["A\x1b[31mred", "a\0b", "\ud800", "\ufffe", "\U0001ffff"])
def test_what_cannot_be_shown_is_refused_with_its_number(text: str) -> None:
    with pytest.raises(texts.Unprintable, match=r"U\+[0-9A-F]{4}"):
        texts.clean_words(text)
