"""What a message must look like before Celery or kombu touch it: what they do not expect kills the worker.

A message that cannot be a task is sent to the signal `refused`; `myproject/alerting/dead_letters.py` stores it.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from celery.utils.time import maybe_iso8601
from django.dispatch import Signal
from kombu.message import Message
from kombu.utils.json import loads

from myproject.queues import QUEUES

# Receivers take `refusal`.
refused = Signal()

# Ours carry ids only, and take about 3 kB with their signature.
MAX_BYTES = 1024 * 1024
# Deeper than ours ever are, and shallower than what overflows the stack of one that writes it as JSON again.
MAX_LEVELS = 30
# What the table of results takes as an id.
MAX_LETTERS = 255


class Kind(StrEnum):
    UNREADABLE = "unreadable"
    MALFORMED = "malformed"
    UNSIGNED = "not signed by us"
    UNKNOWN = "unknown task"
    CONTROL = "control"
    GIVEN_UP = "given up"


class Unfit(Exception):
    """The message cannot be a task, or a command; says why in words."""


class Refusal(NamedTuple):
    """A message that was taken from its queue and not worked on; `raw` may be cut, `size` is not."""

    kind: Kind
    queue: str
    task: str
    reason: str
    raw: bytes
    size: int


def refuse(kind: Kind, queue: str, reason: Exception | str, raw: bytes, task: object = "") -> None:
    """Hand the message to those who keep it; its words are its sender's, and cut."""
    words = f"{reason}" if isinstance(reason, Unfit | str) else f"{type(reason).__name__}: {reason}"
    name = task if isinstance(task, str) else ""
    refusal = Refusal(kind, printable(queue, 80), printable(name, 80), printable(words, 300), raw, len(raw))
    refused.send(sender=None, refusal=refusal)


def printable(words: str, most: int) -> str:
    """Return the words as one line: neither a log nor a database takes all that a message may hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in words[: most + 1])[:most]


def raw_of(message: Message) -> bytes:
    """Return the message in the form that it has on Redis, whichever broker it came from."""
    body = message.body if isinstance(message.body, bytes) else str(message.body or "").encode()
    whole = {
        "body": base64.b64encode(body).decode(),
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
        "headers": message.headers,
        "properties": {**message.properties, "body_encoding": "base64", "delivery_info": message.delivery_info},
    }
    return json.dumps(whole, default=repr).encode()


# --- The envelope, as it lies in Redis ---


def check_envelope(item: bytes, queue: str) -> None:
    """Raise `Unfit` unless kombu can make a message of it and, for a queue of tasks, give it back to that queue."""
    if len(item) > MAX_BYTES:
        raise Unfit(f"it is {len(item)} bytes long, more than {MAX_BYTES}")
    try:
        envelope = loads(item.decode())
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        raise Unfit(f"it is no JSON: {type(error).__name__}") from error
    check_fields("it", envelope, ENVELOPE)
    properties = envelope["properties"]
    check_fields("its properties", properties, PROPERTIES)
    check_fields("its delivery_info", properties["delivery_info"], DELIVERY_INFO)
    check_body(envelope["body"])
    check_depth(envelope)
    check_compression(envelope["headers"])
    # A worker that dies leaves the message to where it says that it came from.
    came_from = properties["delivery_info"]["exchange"], properties["delivery_info"]["routing_key"]
    if queue in QUEUES and came_from != ("", queue):
        raise Unfit(f"it came by {queue} and says that it was sent to {came_from}")


def check_body(body: str) -> None:
    try:
        base64.b64decode(body.encode(), validate=True)
    except ValueError as error:
        raise Unfit("its body is not base64") from error


def check_compression(headers: Mapping[str, Any]) -> None:
    """Ours are not compressed, and a few bytes may unpack to more than the memory holds."""
    if headers.get("compression"):
        raise Unfit("it is compressed")


# --- The task ---


def check_task(message: Message) -> None:
    """Raise `Unfit`, or what decoding raises, unless a worker can take the message as a task."""
    check_fields("its headers", message.headers, HEADERS)
    check_depth(message.headers)
    check_fields("its properties", message.properties, ADDRESSES)
    if len(message.body or "") > MAX_BYTES:
        raise Unfit(f"its body is longer than {MAX_BYTES}")
    payload = message.payload
    if not (isinstance(payload, list | tuple) and len(payload) == 3):
        raise Unfit("its body is not a list of arguments, named arguments and options")
    args, kwargs, embed = payload
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, dict)):
        raise Unfit("its arguments are not a list, named arguments and options")
    check_fields("its options", embed, EMBED)
    check_depth(payload)


def check_fields(what: str, found: Any, wanted: Mapping[str, Callable[[Any], bool]]) -> None:
    if not isinstance(found, dict):
        raise Unfit(f"{what}: not a mapping but {type(found).__name__}")
    for name, fits in wanted.items():
        if not fits(found.get(name)):
            raise Unfit(f"{what}: {name} is {shown(found.get(name))}")


def check_depth(value: Any) -> None:
    """Raise `Unfit` for what is nested too deep; without recursion."""
    level = [value]
    for _ in range(MAX_LEVELS):
        inside = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [value for values in inside for value in values]
    if level:
        raise Unfit(f"it is nested more than {MAX_LEVELS} levels deep")


def shown(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, dict | list) else f"{value!r}"[:80]


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def is_name(value: Any) -> bool:
    """One line that a table and a log take."""
    return isinstance(value, str) and 0 < len(value) <= MAX_LETTERS and value.isprintable()


def is_moment(value: Any) -> bool:
    """As ISO 8601, and within what the calendar of Python can turn into another time zone."""
    try:
        return isinstance(value, str) and 1970 < maybe_iso8601(value).year < 9999
    except (ValueError, TypeError, AttributeError, OverflowError):
        return False


def is_small_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1_000_000


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 < value < 1_000_000_000


def is_pair_of_limits(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(or_none(is_number), value))


def is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_mapping, value))


def is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_name, value))


def or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


ENVELOPE = {
    "body": is_text,
    "content-type": is_name,
    "content-encoding": is_name,
    "headers": is_mapping,
    "properties": is_mapping,
}
ADDRESSES = {"correlation_id": or_none(is_name), "reply_to": or_none(is_name), "priority": or_none(is_small_count)}
PROPERTIES = ADDRESSES | {
    "delivery_tag": is_name,
    "delivery_info": is_mapping,
    "body_encoding": lambda value: value == "base64",
}
DELIVERY_INFO = {"exchange": is_text, "routing_key": is_text}
HEADERS = {
    "task": is_name,
    "id": is_name,
    "root_id": or_none(is_name),
    "parent_id": or_none(is_name),
    "group": or_none(is_name),
    "group_index": or_none(is_small_count),
    "shadow": or_none(is_name),
    "origin": or_none(is_name),
    "lang": or_none(is_name),
    "argsrepr": or_none(is_text),
    "kwargsrepr": or_none(is_text),
    "eta": or_none(is_moment),
    "expires": or_none(is_moment),
    "retries": or_none(is_small_count),
    "timelimit": or_none(is_pair_of_limits),
    "ignore_result": or_none(lambda value: isinstance(value, bool)),
    "replaced_task_nesting": or_none(is_small_count),
    "stamped_headers": or_none(is_list_of_names),
    "stamps": or_none(is_mapping),
    # What a task reads of its message: Celery itself writes these.
    **dict.fromkeys(("args", "kwargs", "properties", "hostname", "delivery_info"), lambda value: value is None),
    **dict.fromkeys(("callbacks", "errbacks", "chain", "chord", "compression"), lambda value: value is None),
}
EMBED = {
    "callbacks": or_none(is_list_of_mappings),
    "errbacks": or_none(is_list_of_mappings),
    "chain": or_none(is_list_of_mappings),
    "chord": or_none(is_mapping),
}
