"""How a line of the log looks, whoever writes it: ours, Django's, Celery's, gunicorn's.

All of them reach one handler, whose formatter is one of the two below: `LOG_FORMAT` names it. What a line carries,
the ids of its request and task, comes from `log_context.py`.
"""

import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from django.http import HttpRequest
from structlog.stdlib import ProcessorFormatter

from myproject.logs.log_context import IDS, path_of
from myproject.logs.secrets import hide

FORMATS: tuple[str, ...] = ("json", "console")
LEVELS: tuple[str, ...] = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Before the formatter: what a line of the standard library has as well. Only what is named here is taken over of
# whatever libraries put beside a line.
SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(allow=["order"]),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

# What no line may hold; the code logs none of it, but texts of errors and addresses do. First a sign that stands in
# each of them: to look for that takes a hundredth of the time.
PRIVATE = [
    (sign, re.compile(pattern))
    for sign, pattern in [
        ("://", r"(?<=://)[^\s/@]{1,200}(?=@)"),  # user and password of a server's address
        ("@", r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,255}"),  # an e-mail address
        ("?", r"(?<=[\w/])\?[^\s\"'<>]+"),  # what follows the path of an address
        (":", r"(?<![\w.-])[\w.-]+:(?:\w{4,8}:)?[\w-]{43}(?![\w-])"),  # a signed link
        ("-", r"\b(?:[0-9a-z]{1,13}-)?[0-9a-z]{6}-[0-9a-f]{32}\b"),  # the link of a password reset
        ("_", r"\b(?:pm|tok|sk|rk|whsec)_\w{4,}"),  # cards and keys of the payment provider
        ("ip=", r"(?<=\bip=)[^\s,;]+"),  # gunicorn's, of a request that it cannot read
        ("DETAIL:", r"(?<=DETAIL:)[^\n]+"),  # the database's, with the whole row
    ]
]
# Made by us, or checked when they came in.
OURS = {"level", "logger", "timestamp", "order", "request_id", "task", "task_id", "parent_task_id", "child_task_id"}


def scrub(text: str) -> str:
    """Return the text without secrets of ours, addresses of people, passwords of servers, and the like."""
    text = hide(text)
    for sign, pattern in PRIVATE:
        if sign in text:
            text = pattern.sub("…", text)
    return text


def scrub_all(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave out of all values of a line what no line may hold."""
    for key, value in event.items():
        if key not in OURS and not isinstance(value, int | float | None):
            event[key] = scrub(value if isinstance(value, str) else repr(value))
    return event


def name_the_view(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Django says which request was refused when its ids are gone, by a path that may be a signed link."""
    request = getattr(event.get("_record"), "request", None)
    if isinstance(request, HttpRequest):
        event["event"] = str(event["event"]).replace(request.path, path_of(request))
        event |= request.META.get(IDS, {})
    return event


def json() -> ProcessorFormatter:
    """One JSON object a line, for machines."""
    return _formatter(structlog.processors.JSONRenderer(default=repr))


def console() -> ProcessorFormatter:
    """Lines for people."""
    colours = sys.stderr.isatty()
    plain = structlog.dev.plain_traceback
    return _formatter(structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain, pad_event_to=0))


def _formatter(renderer: Any) -> ProcessorFormatter:
    clean = ProcessorFormatter.remove_processors_meta
    last: list[Any] = [name_the_view, clean, structlog.processors.format_exc_info, scrub_all, renderer]
    return ProcessorFormatter(foreign_pre_chain=SHARED, processors=last)


def settings(form: str, level: str) -> dict[str, Any]:
    """Return Django's LOGGING, which gunicorn and Celery obey as well."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": f"myproject.logs.logs.{form}"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            # These bring handlers of their own, or none.
            **{name: {"handlers": [], "propagate": True} for name in ("django", "django.server", "gunicorn.error")},
            "multiprocessing": {"handlers": ["console"], "propagate": False},
            # What becomes of a task, `log_context.Receiver` says with its ids, and once.
            "celery.app.trace": {"level": "CRITICAL"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
            # At INFO it writes two lines for each charge, and none of them says for which order.
            # The other two name addresses of chats, which hold tokens; what they have to say is in our own lines.
            "stripe": {"level": "WARNING"},
            "apprise": {"level": "CRITICAL"},
            "urllib3": {"level": "INFO"},
        },
    }


structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *SHARED,
        structlog.stdlib.PositionalArgumentsFormatter(),
        ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
