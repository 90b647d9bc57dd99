"""The answers that docs/errata.md points at exist."""

import re

from django.conf import settings

ROWS = [
    line.split(" | ")
    for line in (settings.BASE_DIR / "docs" / "errata.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| trap ")
]


def defines(path: str, name: str) -> bool:
    """True where the file defines a function, a class, a variable or a service of that name."""
    text = (settings.BASE_DIR / path).read_text()
    return bool(re.search(rf"^ *(?:(?:def|class) {name}\b|{name}(?::[^=\n]+)? =|{name}:$)", text, re.MULTILINE))


def test_errata_point_at_what_exists() -> None:
    answers = [answer for row in ROWS for answer in row[-1].removesuffix(" |").split("; ")]

    places = [re.fullmatch(r"`([\w/.-]+)` · `(\w+)`", answer) for answer in answers]

    assert len(places) > len(ROWS) > 15
    assert [
        answer for answer, place in zip(answers, places, strict=True) if not place or not defines(*place.groups())
    ] == []


def test_errata_have_three_columns() -> None:
    assert {len(row) for row in ROWS} == {3}
