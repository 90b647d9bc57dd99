"""The experiments, by what goes wrong."""

from inspect import getmodule

from lab.experiment import EXPERIMENTS
from lab.experiments import (  # noqa: F401
    canvas,
    commits,
    database,
    deliveries,
    mails,
    messages,
    money,
    queues,
    results,
    retries,
    schedules,
    workers,
)

__all__ = ["CHAPTERS", "EXPERIMENTS"]

# The title of each chapter, which is what its module says of itself, and the experiments in it.
CHAPTERS: dict[str, list[str]] = {}
for slug, each in EXPERIMENTS.items():
    CHAPTERS.setdefault((getmodule(each.naive.run).__doc__ or "").rstrip("."), []).append(slug)
