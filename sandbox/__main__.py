"""Start the sandbox: `python -m sandbox --help`."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from . import mailbox
from .app import make_app, make_world
from .payments import webhooks
from .world import World

# How long a shutdown waits for open requests, such as one for the slow card.
GOODBYE_SECONDS = 1


class CannotListen(Exception):
    """The message says which port, and why."""


def main() -> int:
    options = read_options()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # aiosmtpd logs every SMTP command.
    logging.getLogger("mail").setLevel(logging.ERROR)
    try:
        asyncio.run(serve(options))
    except CannotListen as error:
        return complain(str(error))
    except (OSError, sqlite3.Error) as error:
        return complain(f"cannot keep data in {options.data}: {error}")
    return 0


def read_options() -> argparse.Namespace:
    environment = os.environ.get
    parser = argparse.ArgumentParser(prog="sandbox", description="The outside world of a shop, for development.")
    parser.add_argument("--host", default=environment("SANDBOX_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=environment("SANDBOX_PORT", "8001"), help="0 takes a free one")
    parser.add_argument("--smtp-port", type=int, default=environment("SMTP_PORT", "1025"), help="0 takes a free one")
    parser.add_argument("--data", type=Path, default=environment("SANDBOX_DATA", "var/sandbox"), help="a folder")
    parser.add_argument(
        "--slow-seconds",
        type=float,
        default=environment("SANDBOX_SLOW_SECONDS", "5"),
        help="how long the bank of pm_card_slow takes",
    )
    parser.add_argument("--webhook-url", default=environment("SANDBOX_WEBHOOK_URL", ""), help="empty sends none")
    parser.add_argument("--shop-url", default=environment("SANDBOX_SHOP_URL", ""), help="empty links to none")
    # From the environment only: every user of the machine can read a process's arguments.
    parser.set_defaults(webhook_secret=environment("STRIPE_WEBHOOK_SECRET", "whsec_sandbox"))
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    world = make_world(options.data, options.slow_seconds)
    world.shop_url = options.shop_url
    world.webhook_url, world.webhook_secret = options.webhook_url, options.webhook_secret
    http, smtp = await open_ports(world, options)
    sender = asyncio.create_task(webhooks.send_all(world))
    sys.stdout.write(f"Sandbox ready: {world.http_address} and {world.smtp_address}, data in {options.data}\n")
    sys.stdout.flush()
    await stop.wait()
    sender.cancel()
    smtp.close()
    http.stop()
    with suppress(TimeoutError):
        await asyncio.wait_for(http.close_all_connections(), GOODBYE_SECONDS)
    world.database.close()


async def open_ports(world: World, options: argparse.Namespace) -> tuple[HTTPServer, asyncio.Server]:
    """Raises `CannotListen`."""
    try:
        sockets = bind_sockets(options.port, options.host)
    except OSError as error:
        raise CannotListen(why_not(options.host, options.port, "--port or SANDBOX_PORT", error)) from error
    try:
        smtp = await mailbox.listen(world, options.host, options.smtp_port)
    except OSError as error:
        raise CannotListen(why_not(options.host, options.smtp_port, "--smtp-port or SMTP_PORT", error)) from error
    http = HTTPServer(make_app(world))
    http.add_sockets(sockets)
    world.http_address, world.smtp_address = (
        f"http://{address(sockets[0])}",
        f"smtp://{address(smtp.sockets[0])}",
    )
    return http, smtp


def address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def why_not(host: str, port: int, setting: str, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"cannot listen on {host}:{port}: {reason}. Choose another port with {setting}."


def complain(message: str) -> int:
    sys.stderr.write(f"sandbox: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
