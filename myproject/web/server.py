"""How gunicorn serves the shop: as its own threads do, but no slow visitor and no page keeps the others waiting."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from myproject.web.connections import Connection

log = logging.getLogger(__name__)

# Metrics, too: they say what is frozen.
PROBES = (b"GET /healthz/", b"HEAD /healthz/", b"GET /metrics")
REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Worker(ThreadWorker):
    """Lets its loop read requests and send answers, and has threads of its own for probes and for uploads.

    While a database is frozen all other threads wait for it. A process that then did not say that it lives would be
    killed for what no new process cures. An upload too large to be gathered holds a thread as long as it takes.
    """

    def init_process(self) -> None:
        self.probes, self.uploads = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
        # Whom the loop waits for, and how it lets go of each.
        self.watched: dict[Any, Callable[[Any], None]] = {}
        self.looked_at = time.monotonic()
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        """Begin to gather a request: the first of a connection, or another one."""
        if not isinstance(conn.sock, Connection):
            conn.sock = Connection(conn.sock)
        conn.sock.begin()
        # Gunicorn's thread would wait for it otherwise.
        conn.data_ready = True
        self.gather(conn)

    def gather(self, conn: Any, _: object = None) -> None:
        try:
            is_ready = conn.sock.gather()
        except OSError:
            self.drop(conn)
            return
        if is_ready:
            self.forget(conn)
            self.submit(conn)
        else:
            self.watch(conn, EVENT_READ, self.gather, self.time_out)

    def submit(self, conn: Any) -> None:
        is_probe = conn.sock.inbox.startswith(PROBES)
        pool = self.uploads if conn.sock.is_upload else self.probes if is_probe else self.tpool
        handled = pool.submit(self.handle, conn)
        handled.add_done_callback(lambda future: self.method_queue.defer(self.finish_request, conn, future))

    def finish_request(self, conn: Any, future: Future[Any]) -> None:
        """Send the rest of the answer, then wait for another request, or close."""
        try:
            # What still comes of a body that no one reads is no other request.
            is_kept, is_sent = future.result() and not conn.sock.is_cut_short(), conn.sock.flush()
        except Exception:
            self.drop(conn)
            return
        if not is_sent:
            self.watch(conn, EVENT_WRITE, partial(self.send_rest, future), self.drop)
        elif is_kept and conn.sock.inbox:
            # It came with the one before.
            self.enqueue_req(conn)
        elif is_kept:
            super().finish_request(conn, future)
        else:
            self.part(conn)

    def send_rest(self, future: Future[Any], conn: Any, _: object) -> None:
        self.forget(conn)
        self.finish_request(conn, future)

    def part(self, conn: Any) -> None:
        """Close in two steps, without waiting as gunicorn does: a connection closed unread loses the answer's end."""
        try:
            conn.sock.leave()
        except OSError:
            self.drop(conn)
        else:
            self.watch(conn, EVENT_READ, self.hear_out, self.drop)

    def hear_out(self, conn: Any, _: object = None) -> None:
        try:
            conn.sock.receive()
        except OSError:
            self.drop(conn)

    def watch(self, conn: Any, event: int, act: Callable[[Any, Any], None], give_up: Callable[[Any], None]) -> None:
        if conn not in self.watched:
            self.poller.register(conn.sock, event, partial(act, conn))
            self.watched[conn] = give_up

    def forget(self, conn: Any) -> None:
        if self.watched.pop(conn, None):
            self.poller.unregister(conn.sock)

    def drop(self, conn: Any) -> None:
        self.forget(conn)
        self.nr_conns -= 1
        conn.close()

    def time_out(self, conn: Any) -> None:
        if conn.sock.inbox:
            with suppress(OSError):
                conn.sock.sock.send(REQUEST_TIMEOUT)
        self.drop(conn)

    def murder_pending(self) -> None:
        """Close connections that are too slow; gunicorn calls it in each round."""
        if time.monotonic() - self.looked_at < 1:
            return
        self.looked_at = time.monotonic()
        late = [conn for conn in self.watched if conn.sock.is_too_slow()]
        # A connection without a pending request is only idle.
        if slow := sum(1 for conn in late if conn.sock.inbox or conn.sock.unsent):
            log.info("Closed %d connections that were too slow", slow)
        for conn in late:
            self.watched[conn](conn)
