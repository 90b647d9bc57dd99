"""Hundreds of visitors who send or read as slowly as they can, while everybody else's pages go on."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from django.conf import settings
from psutil import CONN_ESTABLISHED, Process

from myproject.live.app import SLOWEST
from myproject.web.connections import GATHERED, GRACE
from tests.factories import place_order
from tests.live.process import Page, live
from tests.ports import free_port
from tests.production import HOST, Web
from tests.shop import wait_for

pytestmark = pytest.mark.attack

LOGIN, LIVE = "/accounts/login/", "/healthz/live"
# Larger than what a system takes over for a client that does not read.
FILE = "/static/admin/js/vendor/jquery/jquery.js"
ICON = "/static/admin/img/search.svg"
CLIENTS = 200
HEADERS = f"Host: {HOST}\r\nX-Forwarded-Proto: https\r\n"
FORM = f"{HEADERS}Cookie: __Host-csrftoken={'a' * 32}\r\nContent-Type: application/x-www-form-urlencoded\r\n"

# What each client of a kind sends at once; from then on it sends, or reads, a byte a second.
KINDS: dict[str, str] = {
    "headers": f"GET {LOGIN} HTTP/1.1\r\n{HEADERS}X-Slow: ",
    "body": f"POST {LOGIN} HTTP/1.1\r\n{FORM}Content-Length: 100000\r\n\r\nabc",
    "body in chunks": f"POST {LOGIN} HTTP/1.1\r\n{FORM}Transfer-Encoding: chunked\r\n\r\n400\r\nabc",
    "upload": f"POST {LOGIN} HTTP/1.1\r\n{FORM}Content-Length: 9000000\r\n\r\n" + "a" * GATHERED,
    "headers of a probe": f"GET {LIVE} HTTP/1.1\r\n{HEADERS}X-Slow: ",
    "body of a probe": f"GET {LIVE} HTTP/1.1\r\n{HEADERS}Content-Length: 100000\r\n\r\nabc",
    "reading a file": f"GET {FILE} HTTP/1.1\r\n{HEADERS}\r\n",
    "reading many answers": f"GET {FILE} HTTP/1.1\r\n{HEADERS}\r\n" * 5,
    "silent after the answer": f"GET {ICON} HTTP/1.1\r\n{HEADERS}Connection: close\r\n\r\n",
}


class Crowd:
    """Clients of one kind, all on one thread of their own."""

    def __init__(self, port: int, kind: str) -> None:
        self.reads = kind.startswith("reading")
        self.is_over = threading.Event()
        self.clients = [self.connect(port, KINDS[kind].encode()) for _ in range(CLIENTS)]
        self.thread = threading.Thread(target=self.crawl)
        self.thread.start()

    def connect(self, port: int, said: bytes) -> socket.socket:
        client = socket.socket()
        if self.reads:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.sendall(said)
        client.setblocking(False)
        return client

    def crawl(self) -> None:
        while not self.is_over.wait(1):
            for client in list(self.clients):
                if not self.lives(client):
                    self.clients.remove(client)
                    client.close()

    def lives(self, client: socket.socket) -> bool:
        try:
            if self.reads:
                return bool(client.recv(1))
            client.send(b"a")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def go(self) -> None:
        self.is_over.set()
        self.thread.join()
        for client in self.clients:
            client.close()


@contextmanager
def crowd(port: int, *kinds: str) -> Iterator[list[Crowd]]:
    with ExitStack() as stack:
        crowds = []
        for kind in kinds:
            crowds.append(Crowd(port, kind))
            stack.callback(crowds[-1].go)
        yield crowds


@pytest.fixture(scope="module")
def web(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    # Its own process asks the database, the test does not.
    with Web(tmp_path_factory.mktemp("web")) as web:
        yield web


def slowest(ask: Callable[[], int], seconds: float) -> tuple[float, set[int]]:
    """Ask again and again; return how long the slowest answer took, and all statuses."""
    end, took, statuses = time.monotonic() + seconds, 0.0, set()
    while time.monotonic() < end:
        start = time.monotonic()
        statuses.add(ask())
        took = max(took, time.monotonic() - start)
    return took, statuses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(180)
def test_slow_clients_stop_no_page_and_no_probe(kind: str, web: Web) -> None:
    with crowd(web.port, kind):
        page = slowest(lambda: web.get(LOGIN).status, GRACE / 2)
        probe = slowest(lambda: web.get(LIVE).status, GRACE / 4)

    assert (page[1], probe[1]) == ({200}, {200})
    assert max(page[0], probe[0]) < 5


def held(web: Web) -> int:
    """Return how many connections the processes of the web hold."""
    found = [each for child in Process(web.process.pid).children() for each in child.net_connections("tcp")]
    return sum(each.status == CONN_ESTABLISHED and each.laddr.port == web.port for each in found)


@pytest.mark.timeout(240)
def test_slow_clients_of_all_kinds_at_once_are_let_go(web: Web) -> None:
    with crowd(web.port, "headers", "body", "reading a file"):
        page = slowest(lambda: web.get(LOGIN).status, GRACE / 2)
        most = held(web)
        # Of a file the system takes over more than a client wants: that counts as sent.
        wait_for(lambda: not held(web), "the last one to be let go", 8 * GRACE)

    assert page[1] == {200}
    assert page[0] < 5
    assert most > CLIENTS


@pytest.mark.timeout(180)
def test_slow_clients_of_push_keep_no_news_back_and_are_let_go(transactional_db: None) -> None:
    with live() as address, crowd(int(address.rpartition(":")[2]), "headers") as [slow]:
        with Page(address, ("orders",)) as page:
            place_order()
            heard = page.news()
        wait_for(lambda: not slow.clients, "the last one to be let go", 4 * SLOWEST)

    assert heard == "0"


@contextmanager
def caddy(web: Web, folder: Path) -> Iterator[int]:
    """Run the proxy as we ship it, without TLS and on a port of the test's own."""
    port = free_port()
    sites = {"SHOP_SITE": f"http://127.0.0.1:{port}", "FLOWER_SITE": f"http://127.0.0.1:{free_port()}"}
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", "-"]
    # Nothing of it may listen on a port of others.
    config = "{\nadmin off\n" + (settings.BASE_DIR / "deploy/Caddyfile").read_text().partition("\n{\n")[2]
    env = os.environ | sites | {"SHOP_WEB": f"127.0.0.1:{web.port}", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True) as process:
        assert process.stdin
        process.stdin.write(config)
        process.stdin.close()
        try:
            wait_for(lambda: status(port) == 200, "Caddy")
            yield port
        finally:
            process.terminate()


def status(port: int) -> int:
    """Return what a page answers by way of the proxy, which speaks for itself of HTTPS."""
    http = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        http.request("GET", LIVE, headers={"Host": f"127.0.0.1:{port}"})
        return http.getresponse().status
    except OSError:
        return 0
    finally:
        http.close()


@pytest.mark.parametrize("kind", ["headers", "body", "upload", "reading a file"])
def test_slow_clients_of_the_proxy_stop_nothing(kind: str, web: Web, tmp_path: Path) -> None:
    if not shutil.which("caddy"):
        pytest.skip("needs caddy on the PATH")
    with caddy(web, tmp_path) as port, crowd(port, kind):
        through = slowest(lambda: status(port), GRACE / 2)
        direct = slowest(lambda: web.get(LOGIN).status, GRACE / 4)

    assert (through[1], direct[1]) == ({200}, {200})
    assert max(through[0], direct[0]) < 5


def test_request_that_is_sent_in_pieces_is_answered(web: Web) -> None:
    client = socket.create_connection(("127.0.0.1", web.port), timeout=20)
    for piece in (
        f"GET {LOGIN} HTT",
        f"P/1.1\r\n{HEADERS}",
        f"\r\nGET {LIVE} HTTP/1.1\r\n",
        f"{HEADERS}Connection: close\r\n\r\n",
    ):
        client.sendall(piece.encode())
        time.sleep(0.2)
    said = b""
    with suppress(TimeoutError):
        while data := client.recv(65536):
            said += data
    client.close()

    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert b"alive\n" in said


def test_client_that_asks_before_it_sends_is_told_to(web: Web) -> None:
    client = socket.create_connection(("127.0.0.1", web.port), timeout=20)
    client.sendall(f"POST {LOGIN} HTTP/1.1\r\n{FORM}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode())
    leave = client.recv(1024)
    client.sendall(b"a=b")
    status = client.recv(1024).partition(b"\r\n")[0]
    client.close()

    assert leave == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert status == b"HTTP/1.1 403 Forbidden"
