"""Signed messages: who can write to the broker still cannot make a worker run something.

Celery's `auth` serializer signs the body of a message, which holds the arguments. Which task they are for stands in the
headers, and those it does not sign. So the body repeats what decides of them, and a worker compares.
"""

import logging
from typing import Any, NoReturn

from celery import Celery
from celery.exceptions import ImproperlyConfigured, SecurityError
from kombu.message import Message
from kombu.serialization import register

log = logging.getLogger(__name__)

# Names of files.
SETTINGS = ("security_key", "security_certificate", "security_cert_store")
# What else the headers say is only shown: never decide by it.
DECIDING = ("task", "id", "retries", "timelimit", "eta", "expires")


class Forged(Exception):
    """The headers are not those that the message was signed with."""


def is_on(conf: Any) -> bool:
    """Whether anything says so: half a configuration refuses all messages rather than to accept any."""
    return bool(conf.security_key or conf.security_certificate or conf.security_cert_store)


def set_up(app: Celery) -> None:
    """Sign and verify all messages of this process; a no-op where signing is off."""
    if not is_on(app.conf):
        return
    try:
        # JSON stays for what is no task: results, which are in our database, and events.
        app.setup_security(allowed_serializers=["json"])
    except (ImproperlyConfigured, SecurityError, OSError) as error:
        # The check says what to do; until then nothing is sent or taken.
        log.critical("Messages can neither be signed nor verified: %s", str(error).strip().splitlines()[0])
        register("auth", refuse, refuse, content_type="application/data", content_encoding="utf-8")


def refuse(data: Any) -> NoReturn:
    raise SecurityError("messages can neither be signed nor verified; `manage.py check` says why")


def bind(headers: dict[str, Any], embed: dict[str, Any]) -> None:
    """Repeat the headers that decide in the part of the body that is Celery's own."""
    embed["signed"] = {name: headers.get(name) for name in DECIDING}


def verify(message: Message) -> None:
    """Raise `Forged` when the headers are another message's; `payload` itself raises when the body is not signed."""
    match message.payload:
        case [_, _, {"signed": dict(signed)}] if signed == {name: message.headers.get(name) for name in DECIDING}:
            return
    raise Forged("its headers are not those it was signed with")
