"""Kombu's transport of Redis and Valkey, which lives on with what kills a worker: odd messages and a full server."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import OutOfMemoryError, ResponseError

from myproject.queues import QUEUES
from myproject.transport.envelope import Kind, Unfit, check_envelope, refuse

log = logging.getLogger(__name__)


class Told:
    """Says the same only once, until it is over."""

    said = False

    def begin(self, words: str, error: Exception) -> None:
        if not self.said:
            log.warning(words, error)
        self.said = True

    def end(self, words: str) -> None:
        if self.said:
            log.warning(words)
        self.said = False


full = Told()


class QoS(redis.QoS):
    """Keeps the messages that are worked on, by which they come back when the worker dies."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Work on the message all the same when a full Redis does not keep it: only that makes room."""
        try:
            super().append(message, delivery_tag)
        except OutOfMemoryError as error:
            full.begin("Redis is full; what a worker loses now, a sweep queues again: %s", error)
            virtual.QoS.append(self, message, delivery_tag)
        else:
            full.end("Redis takes messages again")

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Look for messages of workers that died; a server that refuses is asked again in two seconds."""
        try:
            super().restore_visible(*args, **kwargs)
        except ResponseError as error:
            full.begin("Redis gives no message back to its queue: %s", error)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Give a message back to its queue, or bury what somebody else has put there."""
        with self.channel.conn_or_acquire(client) as connected:
            kept = connected.hget(self.unacked_key, tag)
            try:
                check_kept(kept)
            except Unfit as error:
                self._remove_from_indices(tag).execute()
                refuse(Kind.UNREADABLE, self.unacked_key, error, kept)
                return
            super().restore_by_tag(tag, connected, leftmost)


def check_kept(kept: bytes | None) -> None:
    """Raise `Unfit` unless this is a message that a worker took, with where it came from."""
    if kept is None:
        return
    try:
        message, exchange, queue = json.loads(kept)
    except (ValueError, TypeError, RecursionError) as error:
        raise Unfit("it is not what a worker keeps of a message") from error
    if exchange != "" or not isinstance(queue, str) or queue not in QUEUES:
        raise Unfit("it does not say which queue it came from")
    check_envelope(json.dumps(message).encode(), queue)


class Guard:
    """What `Channel` and the one of Sentinel have in common."""

    QoS = QoS
    kept: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield the client, or one that is kept: kombu makes a new one, which takes longer than what it is asked.

        A fork, and a lost connection, give the channel another pool, and so another client.
        """
        if client is None and (self.kept is None or self.kept.connection_pool is not self.pool):  # type: ignore[attr-defined]
            self.kept = self._create_client()
        yield client or self.kept

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous)  # type: ignore[misc]
        if asynchronous:
            client.set_response_callback("BRPOP", self.taken)
        return client

    def taken(self, answer: list[bytes] | None, **options: Any) -> tuple[bytes, bytes] | None:
        """Return what BRPOP has taken; None, as when there is nothing, for what cannot be a message."""
        if not answer:
            return None
        key, item = answer
        queue = bytes_to_str(key).rsplit(self.sep, 1)[0]  # type: ignore[attr-defined]
        try:
            check_envelope(item, queue)
        except Unfit as error:
            refuse(Kind.UNREADABLE, queue, error, item)
            return None
        return key, item

    def _handle_message(self, client: Any, answer: Any) -> dict[str, Any]:
        """Return what was heard of a broadcast; without data, which kombu passes over, when it is no message."""
        heard: dict[str, Any] = super()._handle_message(client, answer)  # type: ignore[misc]
        if isinstance(heard["data"], bytes) and bytes_to_str(heard["type"]).endswith("message"):
            channel = bytes_to_str(heard["channel"])
            try:
                check_envelope(heard["data"], channel)
            except Unfit as error:
                refuse(Kind.CONTROL, channel, error, heard["data"])
                heard["data"] = None
        return heard

    def _queue_bind(self, *args: Any) -> None:
        """Bind; on a full Redis go on without, since it must be emptied: only answers to commands need that."""
        try:
            super()._queue_bind(*args)  # type: ignore[misc]
        except OutOfMemoryError as error:
            full.begin("Redis is full; commands to workers are not answered: %s", error)

    def _refresh_bindings(self, queues: list[str]) -> None:
        try:
            super()._refresh_bindings(queues)  # type: ignore[misc]
        except OutOfMemoryError as error:
            full.begin("Redis is full; commands to workers are not answered: %s", error)


class Channel(Guard, redis.Channel):
    pass


class Transport(redis.Transport):
    Channel = Channel


class SentinelChannel(Guard, redis.SentinelChannel):
    pass


class SentinelTransport(redis.SentinelTransport):
    Channel = SentinelChannel
