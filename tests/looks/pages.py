"""Every page of the shop and of the sandbox in a browser, signed in, in a theme and a width."""

import re
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from django.conf import settings
from django.core.management import call_command
from django.test import Client, override_settings
from playwright.sync_api import Browser, Page

from accounts.models import User
from myproject.web import theme as themes
from tests.attack.addresses import addresses
from tests.running import sandbox

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
WIDTHS = (375, 768, 1280, 1920)
# No pages of ours, files, or parts of pages.
SKIPPED = re.compile(
    r"^(flower|favicon|live|lab/.+/(run|live)|api|metrics|healthz|webhooks|pictures|products/<slug:slug>.svg|admin/(r|jsi18n|autocomplete)"
    r"|.*(download|rejected\.csv|/status/|/runs/|/now/|/behind/|files/))"
)
# Of the admin, what it shows of each table; the pages for one more, the history and the end of a row are Django's own.
OF_ADMIN = re.compile(r"^admin/($|\w+/\w+/($|<path:object_id>/change/$)|orders/product/add/$)")
SANDBOX = ("", "ledger", "mail", "mail/1", "chat", "crm", "warehouse", "controls", "nothing")


def pages_of(person: User | None) -> dict[str, str]:
    """Return the address of each page by the name of its picture."""
    found = addresses(person)
    wanted = [a for a in found if not SKIPPED.match(a) and (not a.startswith("admin/") or OF_ADMIN.match(a))]
    return {name_of(a): found[a] for a in wanted} | {"nothing": "/nothing/"}


def name_of(address: str) -> str:
    words = re.sub(r"\(\?P<(\w+)>.+?\)|<(?:\w+:)?(\w+)>", r"\1\2", address)
    return re.sub(r"\W+", "-", words).strip("-") or "shop"


@contextmanager
def tab(browser: Browser, url: str, theme: Theme, person: User | None, width: int = 1280) -> Iterator[Page]:
    """Open a browser that is signed in as the person."""
    context = browser.new_context(
        base_url=url, color_scheme=theme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    known = {themes.COOKIE: theme} | ({settings.SESSION_COOKIE_NAME: session_of(person)} if person else {})
    context.add_cookies([{"name": name, "value": value, "url": url} for name, value in known.items()])
    yield context.new_page()
    context.close()


def session_of(person: User) -> str:
    client = Client()
    client.force_login(person)
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


def show(page: Page, address: str) -> bool:
    """Go there; False where it is no page, such as one that only leads to another."""
    # What takes only POST answers without a body, for which Chromium shows a page of its own, and that comes too late.
    answer = page.request.get(address)
    if answer.status == HTTPStatus.METHOD_NOT_ALLOWED or "html" not in answer.headers.get("content-type", ""):
        return False
    page.goto(address, wait_until="load")
    return True


@contextmanager
def history() -> Iterator[None]:
    """Give the shop its ninety days, of which it tells a sandbox."""
    with sandbox() as places:
        known = {"SANDBOX_API": places["SANDBOX_URL"], "WAREHOUSE_URL": places["WAREHOUSE_URL"]}
        with override_settings(**known):
            call_command("seed_demo")
            yield


def fill_sandbox(places: dict[str, Any]) -> None:
    """Leave a mail, and a word in the chat, so that its lists have rows."""
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Your order", "shop@example.com", "ada@example.com"
    mail.set_content("Thank you.")
    mail.add_alternative("<p>Thank you.</p>", subtype="html")
    smtp = urlsplit(places["EMAIL_URL"])
    with smtplib.SMTP(smtp.hostname or "", smtp.port or 0) as server:
        server.send_message(mail)
    said = b'{"title": "Broken", "message": "A task gave up.", "type": "failure"}'
    to = Request(f"{places['SANDBOX_URL']}/chat", said, {"Content-Type": "application/json"})
    urlopen(to, timeout=10).close()
