"""A connection whose slowness costs no thread: what is read of it, and what is still to be sent, waits in here.

Threads are few, and each visitor decides how slowly to send and to read. So gunicorn's loop (`server.py`) gathers a
request before a thread sees it, and sends what the visitor has not taken yet when the thread has gone on to the next.
"""

import errno
import math
import os
import re
import select
import socket
import time
from collections import deque
from contextlib import suppress
from typing import IO

from django.conf import settings

# A request up to this size reaches a thread whole, as all forms but uploads do.
GATHERED = 64 * 1024
# What may wait to be sent without holding the thread; files wait on their disk.
UNSENT = 256 * 1024
# What is sent at once, so that the others have their turn.
PORTION = 1024 * 1024
# Seconds that each request and each answer may take, and bytes for each of which it may take longer …
GRACE = 10
MIN_RATE = 8 * 1024
# … up to this: an upload that takes longer is given up.
MAX_REQUEST = 900
# Seconds that a visitor may take to hear that the connection is closed.
LINGER = 2

CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n", re.IGNORECASE)
WAITS_FOR_LEAVE = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)


class TooSlow(ConnectionResetError):
    """The visitor sends or reads below the least rate; gunicorn takes it for a connection that broke."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "too slow")


class Bytes:
    """What is to be sent and lies in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def in_memory(self) -> int:
        return len(self.data)

    def send(self, sock: socket.socket) -> int:
        sent = sock.send(self.data)
        self.data = self.data[sent:]
        return sent

    def close(self) -> None: ...


class Part:
    """What is to be sent of a file, which its view has closed by then."""

    def __init__(self, file: IO[bytes], offset: int, count: int) -> None:
        self.descriptor, self.offset, self.left = os.dup(file.fileno()), offset, count

    def send(self, sock: socket.socket) -> int:
        sent = os.sendfile(sock.fileno(), self.descriptor, self.offset, min(self.left, PORTION))
        if not sent:
            raise ConnectionResetError(errno.ECONNRESET, "the file has become shorter")
        self.offset += sent
        self.left -= sent
        return sent

    def __bool__(self) -> bool:
        return self.left > 0

    def in_memory(self) -> int:
        return 0

    def close(self) -> None:
        os.close(self.descriptor)


class Connection:
    """Stands in the place of gunicorn's socket; only the loop reads ahead, only a thread waits."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.inbox = bytearray()
        self.unsent: deque[Bytes | Part] = deque()
        self.begin()

    def begin(self) -> None:
        """Take what comes, or has come already, for another request."""
        self.since, self.moved, self.lasts = time.monotonic(), 0, float(MAX_REQUEST)
        # Where the request ends in what has come; None while that is unknown.
        self.end: int | None = None
        self.is_upload, self.is_answering, self.may_send = True, False, False

    # --- What the loop asks ---

    def gather(self) -> bool:
        """Read what has come; tell whether a thread may begin. Raises `OSError` when no more will come."""
        while not (is_ready := self.is_ready()) and (data := self.receive()):
            self.inbox += data
        return is_ready

    def receive(self) -> bytes:
        """Return what has come, nothing when there is nothing yet; raises `OSError` at the end."""
        try:
            data = self.sock.recv(GATHERED)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "closed")
        self.moved += len(data)
        return data

    def is_ready(self) -> bool:
        """Whether the request is here, or as much of it as is gathered; gunicorn's parser decides what it means."""
        is_full = len(self.inbox) >= GATHERED
        head = self.inbox.find(b"\r\n\r\n") + 4
        if head < 4:
            return is_full
        length = LENGTH.search(self.inbox, 0, head)
        self.end = None if length is None else head + int(length[1])
        if length and int(length[1]) > settings.REQUEST_MAX_BYTES:
            # `refuse_huge_requests` answers without its body, which must not be waited for.
            return True
        self.let_send(head)
        if CHUNKED.search(self.inbox, 0, head):
            # Without a length: nearly all end like this; one that is not complete yet waits as an upload does.
            self.end = None
            return is_full or self.inbox.endswith(b"0\r\n\r\n")
        self.end = self.end or head
        self.is_upload = len(self.inbox) < self.end
        return is_full or not self.is_upload

    def let_send(self, head: int) -> None:
        """Answer `Expect: 100-continue`."""
        if not self.may_send and WAITS_FOR_LEAVE.search(self.inbox, 0, head):
            with suppress(OSError):
                self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.may_send = True

    def is_cut_short(self) -> bool:
        """Whether the request was answered before all of its body came."""
        return self.end is not None and self.end > len(self.inbox)

    def is_too_slow(self) -> bool:
        return time.monotonic() - self.since > min(GRACE + self.moved / MIN_RATE, self.lasts)

    def flush(self) -> bool:
        """Send what the visitor takes now; tell whether that was all. Raises `OSError` when it takes no more."""
        portion = 0
        while self.unsent and portion < PORTION:
            try:
                sent = self.unsent[0].send(self.sock)
            except BlockingIOError:
                break
            self.moved += sent
            portion += sent
            if not self.unsent[0]:
                self.unsent.popleft().close()
        return not self.unsent

    def leave(self) -> None:
        """Say that nothing more is sent; raises `OSError` when the other side has left."""
        self.sock.shutdown(socket.SHUT_WR)
        self.since, self.lasts = time.monotonic(), float(LINGER)

    # --- What gunicorn asks of a socket, in a thread ---

    def recv(self, size: int) -> bytes:
        while not self.inbox and self.end != 0:
            self.wait(select.POLLIN)
            self.inbox += self.receive()
        # Of this request only: what follows is the next one's.
        data = bytes(self.inbox[: size if self.end is None else min(size, self.end)])
        del self.inbox[: len(data)]
        if self.end is not None:
            self.end -= len(data)
        return data

    def send(self, data: bytes) -> int:
        """Leave out gunicorn's own `100 Continue`, all that it says by this: `let_send` has said it."""
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.answer(Bytes(data))
        while sum(piece.in_memory() for piece in self.unsent) > UNSENT:
            self.wait(select.POLLOUT)
            self.flush()

    def sendfile(self, file: IO[bytes], offset: int, count: int) -> None:
        self.answer(Part(file, offset, count))

    def answer(self, piece: Bytes | Part) -> None:
        if not self.is_answering:
            self.is_answering = True
            self.since, self.moved, self.lasts = time.monotonic(), 0, math.inf
        self.unsent.append(piece)
        self.flush()

    def wait(self, event: int) -> None:
        """Hold this thread until the visitor sends or takes something; raises `TooSlow`."""
        poll = select.poll()
        poll.register(self.sock, event)
        while not poll.poll(1000) and not self.is_too_slow():
            pass
        if self.is_too_slow():
            raise TooSlow

    def fileno(self) -> int:
        return self.sock.fileno()

    # Not for gunicorn to set: neither blocks.
    def setblocking(self, flag: bool) -> None: ...

    def settimeout(self, seconds: float | None) -> None: ...

    def gettimeout(self) -> float:
        return 0.0

    def shutdown(self, how: int) -> None:
        self.sock.shutdown(how)

    def close(self) -> None:
        for piece in self.unsent:
            piece.close()
        self.unsent.clear()
        self.sock.close()
