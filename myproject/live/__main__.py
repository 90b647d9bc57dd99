"""`python -m myproject.live`: the process that tells open pages what was committed."""

import asyncio
import os
import resource
import socket
from logging.config import dictConfig

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .app import SLOWEST, application


class Protocol(H11Protocol):
    """uvicorn's own, which would wait forever for the end of a request; ours come in one piece."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(SLOWEST, self.give_up)

    def give_up(self) -> None:
        if self.scope is None:
            self.transport.close()


class Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn waits for answers to end, and a stream ends only by itself.
        application.hub.end_all()
        await super().shutdown(sockets)


def main() -> None:
    try:
        dictConfig(settings.LOGGING)
    except ImproperlyConfigured as error:
        raise SystemExit(str(error)) from None
    # One descriptor for each open page.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    host, port = settings.LIVE_BIND.rsplit(":", 1)
    Server(
        uvicorn.Config(
            application,
            host=host.strip("[]"),
            port=int(port),
            http=Protocol,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=5,
        )
    ).run()


if __name__ == "__main__":
    main()
