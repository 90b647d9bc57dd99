"""Customers who use the real web server: pages, forms with their CSRF token, redirects."""

import html
import re
import time
from importlib import import_module
from typing import Any

import requests
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from accounts.models import User
from orders.models import Order, Product
from tests.factories import make_user

HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')
# A load balancer asks another process when one refuses or drops the connection; the form's token makes it safe.
TRIES = 5


class Buyer:
    """One person, logged in by a session made in the database, with the product in the basket."""

    def __init__(self, product: Product) -> None:
        self.product, self.person = product, make_user()
        self.http = requests.Session()
        self.http.cookies.set(settings.SESSION_COOKIE_NAME, session_of(self.person))
        self.reconnects, self.statuses = 0, list[int]()

    def prepare(self) -> None:
        """Put one unit into the basket and open the checkout page."""
        page = self.ask("GET", self.product.get_absolute_url())
        self.ask("POST", f"/basket/add/{self.product.slug}/", hidden_fields(page) | {"quantity": "1"})
        self.form = hidden_fields(self.ask("GET", "/checkout/"))

    def check_out(self) -> requests.Response:
        """Send the checkout form and follow to the page that tells what became of it."""
        self.page = self.ask("POST", "/checkout/", self.form | {"card": "pm_card_visa"})
        return self.page

    def place(self) -> float:
        """Send the checkout form; return the seconds until the redirect."""
        start = time.monotonic()
        self.page = self.ask("POST", "/checkout/", self.form | {"card": "pm_card_visa"}, allow_redirects=False)
        return time.monotonic() - start

    def order(self) -> Order | None:
        return Order.objects.of(self.person).order_by("-pk").first()

    def ask(self, method: str, path: str, data: dict[str, str] | None = None, **options: Any) -> requests.Response:
        for attempt in range(TRIES):
            try:
                answer = self.http.request(method, settings.SITE_URL + path, data=data, timeout=30, **options)
            except requests.ConnectionError:
                self.reconnects += 1
                if attempt == TRIES - 1:
                    raise
            else:
                self.statuses += [answer.status_code]
                return answer
        raise AssertionError


def hidden_fields(page: requests.Response) -> dict[str, str]:
    return {name: html.unescape(value) for name, value in HIDDEN.findall(page.text)}


def session_of(person: User) -> str:
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(person.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = person.get_session_auth_hash()
    session.create()
    return str(session.session_key)
