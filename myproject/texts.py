"""Texts of other people: one rule for what may be stored, and one function for each danger of writing them out."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.core.exceptions import ValidationError
from django.db import connections, models

# Invisible, and yet part of a word: joiners (Persian, Hindi, families of emoji) and the letters of flags.
JOINERS = "\u200c\u200d"
TAGS = "\U000e0020-\U000e007f"
# Formats that are seen: the signs of Arabic, Syriac and Kaithi numbers.
SEEN_FORMATS = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
KEPT = re.compile(f"[{JOINERS}{TAGS}{SEEN_FORMATS}]")
# Letters by their category that show nothing: fillers of Hangul, and others that fonts ignore by default.
UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
# A joiner with nothing before it, more than one in a row, and letters of a flag behind anything but a flag.
IDLE = re.compile(
    f"(?<![^\\s])[{JOINERS}]+|(?<=[{JOINERS}])[{JOINERS}]+|(?<![\U0001f3f4{TAGS}])[{TAGS}]+|(?<=\U000e007f)[{TAGS}]+"
)
# What Word and others write for a line break within a paragraph.
BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
# A cell that begins so is a formula to some spreadsheet (OWASP, *CSV Injection*), also behind what ends a cell or line.
FORMULA_SIGNS, FORMULA_ENDS = "-+=@＋－＝＠", "\t\r\n"
FORMULA = re.compile(f"(^'*(?=[{FORMULA_SIGNS}{FORMULA_ENDS}])|[;{FORMULA_ENDS}]\"*(?=[{FORMULA_SIGNS}]))")

# What XML 1.0 cannot say (its production 2, `Char`).
UNSPEAKABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Small letters and their capitals, one for one. PostgreSQL's `translate` and Python's make the same of them whatever
# locale the database has: `upper` of ß, ı and ᾳ differs from one to the next. In these scripts no pair will be added.
SCRIPTS = "".join(map(chr, (*range(0x590), *range(0x1E00, 0x1F00))))
SMALL = "".join(letter for letter in SCRIPTS if letter.upper() != letter and letter.upper() in SCRIPTS)
CAPITAL = SMALL.upper()
IN_CAPITALS = str.maketrans(SMALL, CAPITAL)

ASK_FOR_LETTERS = "SELECT upper('я') = 'Я'"

# By this mark Excel knows that a CSV file is UTF-8 when it is opened by a double click.
BOM = "\ufeff"


class Unprintable(ValueError):
    """The text holds a character that no page, mail or file can show."""


def clean_words(text: str) -> str:
    """Return the text on one line, as it is stored; raises `Unprintable`."""
    return _visible(" ".join(_normal(text).split()))


def clean_text(text: str) -> str:
    """Return the text with its lines, as it is stored; raises `Unprintable`."""
    return _visible(BREAKS.sub("\n", _normal(text)).strip(), "\n\t")


def clean_old(text: str, rule: Callable[[str], str] = clean_words) -> str:
    """Return a text from before the rule as the rule has it, with a dot for each character that it refuses."""
    try:
        return rule(text)
    except Unprintable:
        return rule("\n".join(map(show, text.splitlines())))


def _normal(text: str) -> str:
    if text.isascii():
        return text
    seen = "".join(letter for letter in text if not _is_unseen(letter))
    return unicodedata.normalize("NFC", IDLE.sub("", seen))


def _is_unseen(letter: str) -> bool:
    return letter in UNSEEN or (unicodedata.category(letter) == "Cf" and not KEPT.match(letter))


def _visible(text: str, but: str = "") -> str:
    """Refuse control characters, surrogates and noncharacters."""
    if text.isprintable():
        return text
    for letter in text:
        if letter not in but and (unicodedata.category(letter) in ("Cc", "Cs") or _is_no_letter(ord(letter))):
            raise Unprintable(f"holds the character U+{ord(letter):04X}, which cannot be shown")
    return text


def _is_no_letter(number: int) -> bool:
    return 0xFDD0 <= number <= 0xFDEF or number & 0xFFFE == 0xFFFE


def in_capitals(text: str) -> str:
    """Return the text as `InCapitals` has it, by which two are the same in upper or lower case."""
    return text.translate(IN_CAPITALS)


class InCapitals(models.Func):
    """A column as `in_capitals` has a text."""

    function, output_field = "translate", models.CharField()

    def __init__(self, column: Any) -> None:
        super().__init__(column, models.Value(SMALL), models.Value(CAPITAL))


@register(Tags.database)
def check_letters(databases: Collection[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of a database that takes only the letters of ASCII for letters, as in the locale C."""
    return [
        Warning(
            f"The database {alias} tells я and Я apart: a search for лампа does not find Лампа.",
            "Create it with a locale of UTF-8, such as C.UTF-8, and restore a dump into it.",
            id="myproject.W001",
        )
        for alias in databases or ()
        if not _knows_letters(alias)
    ]


def _knows_letters(alias: str) -> bool:
    with connections[alias].cursor() as cursor:
        cursor.execute(ASK_FOR_LETTERS)
        return bool(cursor.fetchone()[0])


def clean_address(email: str) -> str:
    """Return the e-mail address as it is stored and looked up; raises nothing."""
    return unicodedata.normalize("NFC", email.strip().lower())


# --- At every door: the fields clean what forms, commands, imports and services write ---


class _Clean:
    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        return super().clean(self.cleaned(value), model_instance)  # type: ignore[misc]

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = self.stored(super().pre_save(model_instance, add))  # type: ignore[misc]
        setattr(model_instance, self.attname, value)  # type: ignore[attr-defined]
        return value

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return super().get_db_prep_save(self.stored(value), connection)  # type: ignore[misc]

    def cleaned(self, value: Any) -> Any:
        try:
            return self.rule(value) if isinstance(value, str) else value  # type: ignore[attr-defined]
        except Unprintable as error:
            raise ValidationError(f"This text {error}.", code="unprintable") from error

    def stored(self, value: Any) -> Any:
        """Clean what no door has seen, such as a copy of a text from before the rule: a dot for what it refuses."""
        return clean_old(value, self.rule) if isinstance(value, str) else value  # type: ignore[attr-defined]

    def deconstruct(self) -> Any:
        # How a text is cleaned is no part of the schema.
        name, _, args, kwargs = super().deconstruct()  # type: ignore[misc]
        return name, f"django.db.models.{self.plain}", args, kwargs  # type: ignore[attr-defined]


class WordsField(_Clean, models.CharField):
    """Words on one line, such as a name."""

    plain, rule = "CharField", staticmethod(clean_words)


class LinesField(_Clean, models.TextField):
    plain, rule = "TextField", staticmethod(clean_text)


class AddressField(_Clean, models.EmailField):
    """An e-mail address, in lower case, by which alone django-allauth finds whose it is; a look-up is, too."""

    plain, rule = "EmailField", staticmethod(clean_address)

    def get_prep_value(self, value: Any) -> Any:
        return self.cleaned(super().get_prep_value(value))


# --- At every exit: what must not come alive there ---


def show(text: str) -> str:
    """Return a text that was refused, for a person to read: what cannot be shown is a dot."""
    return "".join(_shown(text))


def _shown(text: str) -> Iterator[str]:
    for letter in text:
        is_bad = unicodedata.category(letter) in ("Cc", "Cs") or _is_no_letter(ord(letter)) or _is_unseen(letter)
        yield "·" if is_bad else letter


def in_xml(text: str) -> str:
    """Leave out what XML 1.0 cannot say, not even escaped; some of it was stored before it was refused."""
    return UNSPEAKABLE.sub("", text)


def csv_cell(text: str) -> str:
    """Put an apostrophe before each formula that a spreadsheet could find in the cell, whatever separates its cells."""
    return FORMULA.sub(r"\1'", text)


def from_csv_cell(text: str) -> str:
    """Take back what `csv_cell` has put before a formula at the beginning."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def isolated(text: str) -> str:
    """Keep the direction of the text to itself, where there is no <bdi>: in plain mails (Unicode, annex 9)."""
    return text if text.isascii() else f"\u2068{text}\u2069"
