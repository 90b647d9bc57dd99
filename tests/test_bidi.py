"""The words of strangers keep their direction, and their width, to themselves: on pages and in mails."""

from html.parser import HTMLParser
from typing import Any

import pytest
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.test import Client

from accounts import emails
from accounts.models import AccountMail, User
from accounts.services import notify
from orders.emails import confirmation
from orders.models import BasketLine, Order, OrderItem, Product, ProductImport
from reports.models import ReportSchedule
from tests.attack.addresses import addresses, client_of, make_person
from tests.factories import make_product, make_user, place_order, verified

# Letters that are read from right to left: without isolation the punctuation behind them changes sides.
HEBREW = "שלום"
# What holds nothing but that text; a label is that of a box to tick.
ALONE = {"title", "option", "textarea", "pre", "label", "bdi"}
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "rect", "source", "wbr"}


class Loose(HTMLParser):
    """Collects texts with such letters that stand neither in <bdi>, nor between isolating characters, nor alone."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        if tag not in VOID:
            self.open.append("bdi" if ("dir", "auto") in attrs else tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if is_loose(data) and not ALONE & set(self.open):
            self.found.append(data.strip())


def is_loose(text: str) -> bool:
    isolated = text.split("\u2068")
    return HEBREW in isolated[0] or any(HEBREW in part.partition("\u2069")[2] for part in isolated[1:])


def loose(page: str) -> list[str]:
    parser = Loose()
    parser.feed(page)
    return parser.found


@pytest.fixture
def strangers(db: None) -> User:
    """An administrator who finds rows in Hebrew everywhere."""
    return make_person("administrator") or make_user()


def name_all() -> None:
    """Give a Hebrew name to whatever has a name."""
    for model, field in (
        (User, "name"),
        (Product, "name"),
        (OrderItem, "name"),
        (ReportSchedule, "name"),
        (ProductImport, "original_name"),
    ):
        name = Concat(Value(HEBREW), F("pk"), output_field=model._meta.get_field(field))
        model._default_manager.update(**{field: name})
    Product.objects.update(category=HEBREW, description=HEBREW)
    Order.objects.update(reason=f"\u2068{HEBREW}\u2069.")


def test_pages_keep_the_direction_of_names_to_themselves(strangers: User) -> None:
    client = client_of(strangers)()
    found = addresses(strangers)
    product = make_product()
    client.post(f"/basket/add/{product.slug}/", {"quantity": 1})
    name_all()

    shown = {a: client.get(found[a]) for a in found if not a.startswith(("admin/", "basket/change", "basket/add"))}
    pages = {a: answer for a, answer in shown.items() if "html" in answer.headers["Content-Type"]}

    assert {a: loose(answer.content.decode()) for a, answer in pages.items() if loose(answer.content.decode())} == {}
    assert sum(HEBREW in answer.content.decode() for answer in pages.values()) > 10


def test_sentences_about_products_isolate_their_names(client: Client, db: None) -> None:
    product = make_product(name=HEBREW, stock=3)

    page = client.post(f"/basket/add/{product.slug}/", {"quantity": 9}).content.decode()
    added = client.post(f"/basket/add/{product.slug}/", {"quantity": 2}, follow=True).content.decode()
    BasketLine.objects.update(quantity=7)
    basket = client.get("/basket/").content.decode()

    for shown in (page, added, basket):
        assert f"\u2068{HEBREW}\u2069" in shown
        assert loose(shown) == []


def test_mails_isolate_names(db: None) -> None:
    person, order = verified(make_user(name=HEBREW)), place_order()
    OrderItem.objects.update(name=HEBREW)
    note = notify(person, "Ready", "Now.")
    parts = [confirmation(order), emails.notification(note)]

    for mail in parts:
        assert not is_loose(str(mail.body)), mail.body
        assert loose(str(mail.alternatives[0][0])) == []
        assert HEBREW in str(mail.body)


def test_account_mails_isolate_names(client: Client, db: None, mailoutbox: list[Any]) -> None:
    verified(make_user(name=HEBREW, email="ada@example.com"))

    client.post("/accounts/password/reset/", {"email": "ada@example.com"})

    mail = AccountMail.objects.get()
    assert HEBREW in mail.text
    assert not is_loose(mail.text)
    assert loose(mail.html) == []
