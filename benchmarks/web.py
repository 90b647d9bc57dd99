"""Pages of the shop as production serves them, beside bare views that read or write the same rows (`bare.py`).

Asked by `wrk`, by visitors who ask again at once, and by visitors who read for a while before they do.
"""

import os
import re
import secrets
import shutil
import subprocess
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from importlib import import_module
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.utils import timezone

from accounts.models import User
from orders.basket import Chosen, Line
from orders.models import Basket, BasketLine, Card, Order, Product
from tests.ports import free_port

from . import backlog, processes
from .environment import HOME
from .report import Median, Row, write

SIDES = {"bare": "benchmarks.bare", "shop": "myproject.wsgi"}
ROUNDS, SECONDS = 3, 3
# Visitors who ask again at once: more than the threads of both processes; and those who read about this long before.
BUSY, READING, PAUSE_MS = 12, 20, 500
# More than either side takes in one run, or an order would find an empty basket; it is checked.
CUSTOMERS = 2000
CATEGORIES = ["Lighting", "Textiles", "Kitchen", "Desk", "Garden", "Paper"]
CSRF = secrets.token_hex(16)
# As a browser sends them through the proxy.
HEADERS = {
    "Host": "localhost",
    "Origin": "https://localhost",
    "X-Forwarded-Proto": "https",
    "Accept-Encoding": "gzip",
    "Content-Type": "application/x-www-form-urlencoded",
}
# One request after the other of a file: method, path, cookies, body.
SCRIPT = """
local requests, n, pause = {}, 0, tonumber(os.getenv("PAUSE"))
for line in io.lines(os.getenv("REQUESTS")) do
  local method, path, cookies, body = line:match("(%S+) (%S+) (%S*) (%S*)")
  local headers = {Cookie = cookies ~= "" and cookies or nil}
  table.insert(requests, {method, path, headers, body ~= "" and body or nil})
end
function request()
  n = n % #requests + 1
  local method, path, headers, body = unpack(requests[n], 1, 4)
  for name, value in pairs(wrk.headers) do headers[name] = headers[name] or value end
  return wrk.format(method, path, headers, body)
end
if pause > 0 then
  function delay() return math.random(pause / 2, pause * 3 / 2) end
end
"""
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Measured(NamedTuple):
    per_second: float
    p99: float


def web() -> list[Row]:
    """Requests a second where visitors ask again at once, and the 99th percentile where they read in between."""
    if not shutil.which("wrk"):
        write("\nThe web is left out: there is no wrk on the PATH (Debian's package has this name).")
        return []
    pages = prepare()
    (HOME / "wrk.lua").write_text(SCRIPT)
    with ExitStack() as stack:
        ports = {side: stack.enter_context(serving(module)) for side, module in SIDES.items()}
        return [row for page, requests in pages.items() for row in compare(page, requests, ports)]


def prepare() -> dict[str, list[str]]:
    """Return the lines of each page's requests; products, an order and customers with full baskets are made."""
    call_command("collectstatic", interactive=False, verbosity=0)
    for n, product in enumerate(Product.objects.all()):
        Product.objects.filter(pk=product.pk).update(category=CATEGORIES[n % len(CATEGORIES)])
    order = Order.objects.get(pk=backlog.fill(1)[0])
    customers = User.objects.bulk_create(User(email=f"{n}@web.example.com", name="C") for n in range(CUSTOMERS))
    Basket.objects.bulk_create(Basket(person=customer) for customer in customers)
    backlog.tidy()
    return {
        "Catalogue": ["GET /  "],
        "Product": [f"GET {Product.objects.all()[7].get_absolute_url()}  "],
        "Order": [f"GET {order.get_absolute_url()} {cookies([order.customer])[0]} "],
        "Checkout": [f"POST /checkout/ {cookie} " for cookie in cookies(customers)],
    }


def cookies(people: list[User]) -> list[str]:
    """Sign these people in, and return what their browsers send."""
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    ends = timezone.now() + timedelta(days=1)
    sessions = [Session(session_key=secrets.token_hex(16), expire_date=ends) for _ in people]
    for person, session in zip(people, sessions, strict=True):
        signed_in = {SESSION_KEY: str(person.pk), HASH_SESSION_KEY: person.get_session_auth_hash()}
        session.session_data = store.encode({**signed_in, BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0]})
    Session.objects.bulk_create(sessions)
    names = settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME
    return [f"{names[0]}={session.session_key};{names[1]}={CSRF}" for session in sessions]


@contextmanager
def serving(module: str) -> Iterator[int]:
    """Gunicorn with the shop's own configuration, as the Procfile starts it; yields its port."""
    port = free_port()
    command = ["-m", "gunicorn", module, "--config", "deploy/gunicorn.conf.py"]
    with processes.running(*command, WEB_BIND=f"127.0.0.1:{port}", BEHIND_PROXY="true"):
        processes.wait_for(lambda: answers(port), "gunicorn")
        yield port


def answers(port: int) -> bool:
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}/", headers=HEADERS), timeout=5):
            return True
    except HTTPError as error:
        raise SystemExit(f"The server answers {error.code}.") from None
    except OSError:
        return False


def compare(page: str, requests: list[str], ports: dict[str, int]) -> list[Row]:
    """Let the sides take turns; return their medians."""
    found: dict[tuple[str, int], list[Measured]] = defaultdict(list)
    for number in range(ROUNDS + 1):
        for pause in (0, PAUSE_MS):
            for side, port in ports.items():
                measured = measure(page, requests, port, pause)
                # The first round is for caches and connections.
                if number:
                    found[side, pause].append(measured)
    rows = []
    for title, pause in (("visitors ask again at once", 0), ("visitors read in between", PAUSE_MS)):
        speed, p99 = ({side: median(found[side, pause], n) for side in ports} for n in range(2))
        if not pause:
            rows.append(Row(f"{page}, {title}", "a bare view", speed["bare"], speed["bare"], unit="requests/s"))
            rows.append(Row("", "ours", speed["shop"], speed["bare"], least=0.5, unit="requests/s"))
        rows.append(Row(f"{page}, {title}", "a bare view, p99", p99["bare"], p99["bare"], unit="ms"))
        rows.append(Row("", "ours, p99", p99["shop"], p99["bare"], most=2, unit="ms"))
    return rows


def median(rounds: list[Measured], column: int) -> Median:
    return Median.of([measured[column] for measured in rounds])


def measure(page: str, requests: list[str], port: int, pause: int) -> Measured:
    placed = 0
    if page == "Checkout":
        requests = [line + body for line, body in zip(requests, fill_baskets(), strict=True)]
        placed = Order.objects.count()
    (HOME / "requests.txt").write_text("\n".join(requests))
    options = ["--threads", "1", "--connections", str(READING if pause else BUSY), "--duration", f"{SECONDS}s"]
    headers = [part for header in HEADERS.items() for part in ("--header", ": ".join(header))]
    done = subprocess.run(
        ["wrk", "--latency", *options, *headers, "--script", HOME / "wrk.lua", f"http://127.0.0.1:{port}"],
        env=os.environ | {"REQUESTS": str(HOME / "requests.txt"), "PAUSE": str(pause)},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    answered = int(re.findall(r"(\d+) requests in", done)[0])
    # What was on its way when the time was up is placed as well.
    if "Non-2xx" in done or (page == "Checkout" and Order.objects.count() - placed < answered):
        raise SystemExit(f"{page} was not answered:\n{done}")
    [(p99, unit)] = re.findall(r"99%\s+([\d.]+)([a-z]+)", done)
    return Measured(float(re.findall(r"Requests/sec:\s+([\d.]+)", done)[0]), float(p99) * UNITS[unit])


def fill_baskets() -> list[str]:
    """Put three things into the basket of each customer, and return the form that each would send."""
    product, *others = Product.objects.order_by("pk")[: backlog.ITEMS]
    chosen = [product, *others]
    BasketLine.objects.all().delete()
    BasketLine.objects.bulk_create(
        BasketLine(basket=basket, product=product, quantity=1)
        for basket in Basket.objects.filter(person__email__endswith="@web.example.com")
        for product in chosen
    )
    form = {
        "csrfmiddlewaretoken": CSRF,
        "card": Card.VISA.value,
        "contents": Chosen([Line(product, 1) for product in chosen]).fingerprint,
    }
    return [urlencode(form | {"token": str(uuid.uuid4())}) for _ in range(CUSTOMERS)]
