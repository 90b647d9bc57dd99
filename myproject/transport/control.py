"""What reaches a worker by the broadcast: commands. One that is none is refused, and the worker goes on listening."""

from typing import Any

from celery.app import control
from kombu import pidbox
from kombu.message import Message
from redis.exceptions import OutOfMemoryError

from myproject.transport.envelope import Kind, Unfit, check_fields, is_mapping, is_name, or_none, raw_of, refuse
from myproject.transport.on_redis import full

COMMAND = {
    "method": is_name,
    "arguments": or_none(is_mapping),
    "destination": or_none(lambda value: isinstance(value, list)),
    "pattern": or_none(is_name),
    # Not `pcre`: a regular expression may take forever.
    "matcher": lambda value: value in (None, "glob"),
    "ticket": or_none(is_name),
    "reply_to": or_none(is_mapping),
}
REPLY_TO = {"exchange": is_name, "routing_key": is_name}


def check_command(body: Any, message: Message) -> None:
    check_fields("the command", body, COMMAND)
    if body.get("reply_to"):
        check_fields("its reply_to", body["reply_to"], REPLY_TO)
    check_fields("its headers", message.headers, {"clock": or_none(is_clock)})


def is_clock(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


class Node(pidbox.Node):
    def handle_message(self, body: Any, message: Any = None) -> Any:
        try:
            if message is not None:
                check_command(body, message)
        except Unfit as error:
            return refuse(Kind.CONTROL, "the broadcast", error, raw_of(message))
        return super().handle_message(body, message)

    def reply(self, *args: Any, **options: Any) -> None:
        try:
            super().reply(*args, **options)
        except OutOfMemoryError as error:
            full.begin("Redis is full; commands to workers are not answered: %s", error)


class Mailbox(pidbox.Mailbox):
    node_cls = Node


class Control(control.Control):
    Mailbox = Mailbox
