"""The page of the documentation that is made from the experiments and the numbers of their last run."""

import re
from collections.abc import Iterator

from lab import notes, results
from lab.experiment import WORDS, Experiment
from lab.experiments import CHAPTERS, EXPERIMENTS

INTRODUCTION = """\
# What tutorials get wrong

Tutorials on Django with Celery copy from each other, traps included. Each section is a trap that we met, what happens,
and where this code base answers it. What happens was not thought out but measured: the numbers are those of the last
`make lab`, which runs the tutorials' way and this shop's way under the same fault, and turns red when the one does not
fail as it is told here, or the other does not hold. Run an experiment yourself at `/lab/`, or by `python -m lab` and
its name."""
REST = """\
## What no experiment shows

Further practices that this shop does otherwise, without a race to watch."""


def page() -> str:
    """Return the page, in Markdown."""
    known = results.known()
    parts = [INTRODUCTION]
    for title, slugs in CHAPTERS.items():
        parts.append(f"## {title}")
        parts += [section(EXPERIMENTS[slug], known.get(slug, {})) for slug in slugs]
    parts.append(REST)
    parts += [
        f"### {code_of(note.practice)}\n\n{note.happens}\n\nAnswered in: {places(note.answers)}."
        for note in notes.NOTES
    ]
    return "\n\n".join(parts) + "\n"


def section(chosen: Experiment, numbers: dict[str, dict[str, float]]) -> str:
    facts = [
        f"### {code_of(chosen.title)}",
        f"*The practice:* {chosen.practice} *The fault:* {chosen.fault}",
        "\n".join(rows_of(chosen, numbers)),
        chosen.why,
        f"Answered in: {places(chosen.answers)}; tested in `{chosen.test}`. The experiment: `{chosen.slug}`.",
    ]
    return "\n\n".join(facts)


def rows_of(chosen: Experiment, numbers: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield the table of what was seen."""
    if not numbers:
        yield "It has not been run since it was entered."
        return
    sides = {name: numbers.get(name, {}) for name in chosen.sides}
    yield "| | the tutorials | this shop |"
    yield "|---|--:|--:|"
    for key, words in WORDS.items():
        if any(key in seen for seen in sides.values()):
            cells = (f"{seen[key]:,g}" if key in seen else "–" for seen in sides.values())
            yield f"| {words} | {' | '.join(cells)} |"


def places(answers: tuple[str, ...]) -> str:
    return "; ".join("`{}` · `{}`".format(*place.split(" · ")) for place in answers)


def code_of(title: str) -> str:
    """Mark the words of a title that are code."""
    return re.sub(r"(\S*(?:[_=]|\(\))\S*?)(?=[:,]?(?:\s|$))", r"`\1`", title)


PAGES = {"tutorials.md": page}
