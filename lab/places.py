"""The files that experiments name, for pages that show them."""

import re
from functools import cache
from urllib.parse import urlencode

from django.conf import settings
from django.urls import reverse

from lab import notes
from lab.experiment import Line
from lab.experiments import EXPERIMENTS


@cache
def files() -> frozenset[str]:
    """Return the paths of the named files that are installed here: an image has no tests."""
    told = {path for chosen in EXPERIMENTS.values() for path in (chosen.page, chosen.test)}
    shown = {snippet.path for chosen in EXPERIMENTS.values() for side in chosen.sides.values() for snippet in side.code}
    answers = [chosen.answers for chosen in EXPERIMENTS.values()] + [note.answers for note in notes.NOTES]
    paths = told | shown | {split(place)[0] for places in answers for place in places}
    return frozenset(path for path in paths if (settings.BASE_DIR / path).is_file())


def split(place: str) -> tuple[str, str]:
    """Return the path and the name of a place, "path · name"; "" where it has no name."""
    path, _, name = place.partition(" · ")
    return path, name


def address_of(place: str) -> str:
    """Return the address of the page that shows the place, "" where there is none."""
    path, name = split(place)
    if path not in files():
        return ""
    return reverse("lab:file", args=[path]) + (f"?{urlencode({'name': name})}#here" if name else "")


def lines_of(path: str, name: str) -> list[Line]:
    """Return the lines of a named file, marked where it defines the name, which no part of another thing does."""
    begins = re.compile(rf"\s*((async def|def|class) {re.escape(name)}\b|{re.escape(name)} ?[=:])") if name else None
    texts = (settings.BASE_DIR / path).read_text().splitlines()
    found = [number for number, text in enumerate(texts) if begins and begins.match(text)]
    place = min(found, key=lambda number: len(texts[number]) - len(texts[number].lstrip()), default=None)
    return [Line(number + 1, text, number == place) for number, text in enumerate(texts)]
