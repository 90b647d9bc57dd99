"""Real messages, made odd: by their structure and by their bytes, the same ones for the same seed."""

import base64
import copy
import json
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

Json = Any
ODD: list[Json] = [
    *(None, True, False, 0, -1, 1.5, 10**30, float("nan"), float("inf")),
    *("", "x", "\0", "\n", "€" * 300, "../../etc", "10", "-5", "never", "2026-13-45", "9999-12-31T23:59:59+00:00"),
    *([], {}, [[]], [None], {"a": {}}, ["10", "20"], [1, 2, 3], {"__type__": "uuid", "__value__": "x"}),
    *({"__type__": "datetime", "__value__": 5}, "0001-01-01T00:00:00+14:00", "application/x-python-serialize"),
    *("zlib", "orders.tasks.no_such_task", "celery.chord_unlock", "utf-16", "base85", "unacked", "a" * 3000),
]


def nested(levels: int) -> Json:
    value: Json = {}
    for _ in range(levels):
        value = {"a": [value]}
    return value


def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return where something stands in the value, and where something else could stand."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield (*path, name)
        yield from places(inner, (*path, name))


def change(dice: random.Random, whole: Json) -> Json:
    """Return a copy in which one thing is missing, odd, twice, or somewhere else."""
    whole = copy.deepcopy(whole)
    path = dice.choice(list(places(whole)) or [()])
    if not path:
        return dice.choice(ODD)
    at = whole
    for name in path[:-1]:
        at = at[name]
    act = dice.randrange(6)
    if act == 0:
        del at[path[-1]]
    elif act == 1:
        at[path[-1]] = nested(dice.choice((5, 40, 200)))
    elif act == 2:
        at[path[-1]] = copy.deepcopy(dice.choice([at, whole]))
    else:
        at[path[-1]] = copy.deepcopy(dice.choice(ODD))
    return whole


def spoil(dice: random.Random, content: bytes) -> bytes:
    """Return the bytes with some of them missing, odd, twice, or others."""
    start = dice.randrange(len(content) + 1)
    end = min(len(content), start + dice.choice((1, 1, 3, 20, 300)))
    odd = dice.choice((b"", b"\0", b"\xff", b'"', b"}", b"[" * 3000, dice.randbytes(5), content[start:end] * 2))
    return content[:start] + odd + content[end:] if dice.random() < 0.9 else content[:start]


def change_envelope(dice: random.Random, message: Json) -> bytes:
    return json.dumps(change(dice, message)).encode()


def change_headers(dice: random.Random, message: Json) -> bytes:
    return json.dumps(message | {"headers": change(dice, message["headers"])}).encode()


def change_body(dice: random.Random, message: Json) -> bytes:
    try:
        body = json.dumps(change(dice, json.loads(base64.b64decode(message["body"])))).encode()
    except ValueError:
        # It is signed.
        body = spoil(dice, base64.b64decode(message["body"]))
    return json.dumps(message | {"body": base64.b64encode(body).decode()}).encode()


def spoil_body(dice: random.Random, message: Json) -> bytes:
    body = spoil(dice, base64.b64decode(message["body"]))
    return json.dumps(message | {"body": base64.b64encode(body).decode()}).encode()


def spoil_envelope(dice: random.Random, message: Json) -> bytes:
    return spoil(dice, json.dumps(message).encode())


KINDS: list[Callable[[random.Random, Json], bytes]] = [
    *(change_envelope, change_headers, change_headers, change_body, spoil_body, spoil_envelope),
]


def mutations(messages: list[Json], count: int, seed: int) -> Iterator[bytes]:
    """Return so many messages that are no longer as they were."""
    dice = random.Random(seed)
    for _ in range(count):
        message = copy.deepcopy(dice.choice(messages))
        # Another message for the broker, not one that comes again.
        message["properties"]["delivery_tag"] = str(uuid.UUID(int=dice.getrandbits(128)))
        spoiled = dice.choice(KINDS)(dice, message)
        if dice.random() < 0.2 and spoiled[:1] == b"{":
            spoiled = spoil(dice, spoiled)
        yield spoiled
