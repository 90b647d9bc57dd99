"""Kombu's transport of RabbitMQ, which lives on with messages whose properties cannot be read."""

import sys
from collections.abc import Callable
from typing import Any

from amqp.exceptions import AMQPError
from amqp.method_framing import frame_handler
from kombu.transport import pyamqp

from myproject.transport.envelope import Unfit, check_compression

HEADER = 2
# Class, weight and size of the body; then what the message says of itself.
FIXED = 12
NOTHING = b"\0\0"


def lenient(connection: Any, callback: Any, **options: Any) -> Callable[[tuple[int, int, bytes]], bool]:
    """Read frames as py-amqp does, but take a message without its properties where these cannot be read.

    Otherwise the connection would end, and begin anew with the same message.
    """
    read = frame_handler(connection, callback, **options)

    def on_frame(frame: tuple[int, int, bytes]) -> bool:
        try:
            return bool(read(frame))
        except (AMQPError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            kind, channel, content = frame
            if kind != HEADER:
                raise
            return bool(read((kind, channel, bytes(content[:FIXED]) + NOTHING)))

    return on_frame


class Message(pyamqp.Message):
    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        headers = msg.properties.get("application_headers")
        try:
            check_compression(headers or {})
        except Unfit:
            # It is refused by these, as what cannot be unpacked is.
            self.errors = [sys.exc_info()]
        super().__init__(msg, channel, **options)


class Channel(pyamqp.Channel):
    Message = Message


class Connection(pyamqp.Connection):
    Channel = Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, frame_handler=lenient, **options)


class Transport(pyamqp.Transport):
    Connection = Connection


class SSLTransport(pyamqp.SSLTransport):
    Connection = Connection
