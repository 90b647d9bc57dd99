"""How gunicorn serves the shop: as its own threads do, but the probes never wait behind the pages."""

import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gunicorn.workers.gthread import _DEFER, ThreadWorker

# Metrics, too: they say what is frozen.
PROBES = (b"GET /healthz/", b"HEAD /healthz/", b"GET /metrics")
# How gunicorn says that a connection has sent nothing yet, so that its own loop watches it.
SILENT: Future[object] = Future()
SILENT.set_result(_DEFER)


class Worker(ThreadWorker):
    """Has threads of its own for the probes.

    While a database is frozen all other threads wait for it. A process that then did not say that it lives would be
    killed for what no new process cures.
    """

    def init_process(self) -> None:
        self.lane = ThreadPoolExecutor(2)
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        first = beginning(conn.sock)
        if first is None and not conn.initialized:
            self.finish_request(conn, SILENT)
            return
        pool = self.lane if (first or b"").startswith(PROBES) else self.tpool
        handled = pool.submit(self.handle, conn)
        handled.add_done_callback(lambda future: self.method_queue.defer(self.finish_request, conn, future))


def beginning(connection: socket.socket) -> bytes | None:
    """Return the first bytes of a request, which stay to be read; None while there are none."""
    try:
        return connection.recv(len(max(PROBES, key=len)), socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        # Broken; whoever reads it learns why.
        return b""
