"""Any text, in at each door and out of each writer. `test_all_texts.py` tries few, `make faults` many."""

import csv
import io
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import openpyxl
from django.core.cache import cache
from django.db import transaction
from django.db.models import Value
from django.test import Client
from django.utils.html import escape
from hypothesis import strategies as st
from pyarrow import parquet

from accounts import emails as account_emails
from accounts.models import ApiToken, User
from accounts.services import notify
from myproject import texts
from myproject.logs import logs
from orders import digests, emails, import_services, services
from orders.models import Card, Order, OrderItem, Product, Status
from reports import services as reports
from reports.models import Format, Kind, ReportSchedule
from tests.factories import (
    make_digest,
    make_import,
    make_product,
    make_report,
    make_schedule,
    make_user,
    place_order,
    put,
    verified,
)

# Half of the letters are of the dangerous kinds.
DANGEROUS = "=+-@＝＋－＠'\"; ,\t\r\n\v\f\x1b\x85\u2028\u200b\u200d\u202e\u2066\ufffe\U000e0041\U0001f3f4e\u0301<&>{%ßİ"
HELD = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
# What a column of PostgreSQL can hold, and what a browser can send.
STORED = st.text(st.one_of(HELD, st.sampled_from(DANGEROUS)), min_size=1, max_size=40)
# What JSON can say besides.
SAID = st.text(st.one_of(st.characters(), st.sampled_from(f"{DANGEROUS}\0\ud800")), max_size=40)


@contextmanager
def undone() -> Iterator[None]:
    """Take back what an example writes, so that the next one begins as the first did."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


class Shop:
    """One order of one customer, whom staff looks at; its texts are then written anew for each example."""

    def __init__(self) -> None:
        self.product, self.customer = make_product(stock=1_000_000), verified(make_user())
        self.staff = make_user(is_staff=True, is_superuser=True)
        # In the days of the reports that `tables` reads.
        long_ago = datetime(2025, 10, 26, tzinfo=UTC)
        self.order = put(place_order(self.customer, self.product), Status.COMPLETED, long_ago)
        self.schedule, self.digest = make_schedule(self.staff), make_digest(self.customer)
        self.office, self.shopper = Client(), Client()
        self.office.force_login(self.staff)
        self.shopper.force_login(self.customer)
        self.secret = ApiToken.objects.make(self.customer, "script")

    # --- Doors ---

    def pass_doors(self, text: str) -> None:
        """Send the text to each door; what a door takes is stored as the one rule has it."""
        for door in (self.admin, self.profile, self.token, self.schedule_form, self.search, self.upload):
            cache.clear()
            door(text)
        self.script(text)

    def admin(self, text: str) -> None:
        sku = f"N-{uuid.uuid4().hex[:12]}"
        form = {"sku": sku, "name": text, "category": text, "description": text, "price": "1", "adjust_stock": "0"}
        taken(self.office.post("/admin/orders/product/add/", form))
        for product in Product.objects.filter(sku=sku):
            assert (product.name, product.description) == (texts.clean_words(text), texts.clean_text(text))
        taken(self.office.post("/admin/orders/product/add/", form | {"sku": text, "name": "x", "category": "x"}))

    def profile(self, text: str) -> None:
        if taken(self.shopper.post("/people/profile/", {"name": text})) == 302:
            assert User.objects.get(pk=self.customer.pk).name == texts.clean_words(text)

    def token(self, text: str) -> None:
        ApiToken.objects.filter(person=self.customer).exclude(name="script").delete()
        taken(self.shopper.post("/people/tokens/", {"name": text}))

    def schedule_form(self, text: str) -> None:
        taken(self.office.post(self.schedule.get_absolute_url(), {"name": text, "kind": text, "at": text, "day": text}))
        taken(self.office.post("/reports/", {"kind": text, "format": text, "customer": text, "start": text}))

    def search(self, text: str) -> None:
        for path in ("/", "/back-office/orders/", "/admin/orders/product/", "/admin/accounts/user/"):
            taken(self.office.get(path, {"q": text, "category": text, "page": text, "sort": text}))

    def upload(self, text: str) -> None:
        table = io.StringIO()
        sku = f"N-{uuid.uuid4().hex[:12]}"
        csv.writer(table).writerows([["name", "sku", "price", "stock", "category"], [text, sku, 1, 1, text]])
        row = make_import(table.getvalue(), requested_by=self.staff)
        import_services.run_import(row.pk)
        row.refresh_from_db()
        assert row.status == "done" or row.error
        for product in Product.objects.filter(sku=sku):
            assert product.name == texts.clean_words(texts.from_csv_cell(text.strip()))
        taken(self.office.get(row.get_absolute_url()))
        taken(self.office.get(f"{row.get_absolute_url()}rejected.csv"))

    def script(self, text: str) -> None:
        headers = {"Authorization": f"Bearer {self.secret}", "Idempotency-Key": str(uuid.uuid4())}
        said = json.dumps({"items": [{"sku": text, "quantity": 1}], "card": text})
        taken(self.shopper.post("/api/v1/orders/", said, content_type="application/json", headers=headers))

    # --- Writers ---

    def store(self, text: str) -> None:
        """Write the text past each rule, as something of long ago did."""
        Product.objects.filter(pk=self.product.pk).update(
            name=Value(text), category=Value(text), description=Value(text)
        )
        OrderItem.objects.filter(order=self.order).update(name=Value(text))
        User.objects.filter(pk__in=[self.customer.pk, self.staff.pk]).update(name=Value(text))
        ReportSchedule.objects.update(name=Value(text))
        self.order = Order.objects.select_related("customer").get(pk=self.order.pk)
        self.product.refresh_from_db()

    def leave(self, text: str, form: Callable[[Kind, Format], io.BytesIO]) -> None:
        """Let each writer write the stored text."""
        for writer in (self.pages, self.pictures, self.mails, self.json, log_line, self.copies):
            writer(text)
        self.tables(text, form)

    def pages(self, text: str) -> None:
        shown = [self.product.get_absolute_url(), self.order.get_absolute_url()]
        for path in shown:
            assert escape(text) in read(self.shopper, path)
        for path in ("/", "/basket/", "/people/profile/"):
            read(self.shopper, path)
        admin = f"/admin/orders/product/{self.product.pk}/change/", f"/admin/orders/order/{self.order.pk}/change/"
        for path in (*admin, "/admin/orders/product/", "/reports/schedules/", self.schedule.get_absolute_url()):
            read(self.office, path)

    def pictures(self, text: str) -> None:
        drawn = ElementTree.fromstring(read(self.shopper, f"/products/{self.product.slug}.svg"))
        title = drawn.find("{http://www.w3.org/2000/svg}title")
        assert title is not None
        if is_clean(text):
            assert title.text == text

    def mails(self, text: str) -> None:
        week = self.digest.week + timedelta(weeks=1)
        told = notify(self.customer, text, text)
        mails = [
            emails.confirmation(self.order),
            emails.digest(self.digest, digests.orders_of([self.customer.pk], week)[self.customer.pk], [self.product]),
            account_emails.welcome(self.customer),
            account_emails.notification(told),
        ]
        for mail in mails:
            assert mail.message().as_bytes()
            assert "\n" not in mail.subject
        assert text in mails[0].body.replace("\r\n", "\n") or not is_clean(text)

    def json(self, text: str) -> None:
        headers = {"Authorization": f"Bearer {self.secret}"}
        answer = self.shopper.get(f"/api/v1/orders/{self.order.reference}/", headers=headers)
        assert [line["name"] for line in answer.json()["items"]] == [text]
        file = io.BytesIO()
        export = make_report(self.customer, kind=Kind.PERSONAL_DATA, format=Format.JSON, start=None, end=None)
        reports.write(export, file, lambda rows: None)
        assert json.loads(file.getvalue())["orders"][0]["items"][0]["name"] == text

    def copies(self, text: str) -> None:
        """An order copies the name of its product."""
        order = services.place_order(self.customer, {self.product: 1}, Card.VISA, uuid.uuid4())
        assert order.items.get().name == texts.clean_old(text)
        order.delete()

    def tables(self, text: str, form: Callable[[Kind, Format], io.BytesIO]) -> None:
        rows = list(
            csv.reader(io.StringIO(form(Kind.SALES_BY_CATEGORY, Format.CSV).getvalue().decode("utf-8-sig"), ""))
        )
        assert texts.csv_cell(text) in [row[0] for row in rows]
        sheet = openpyxl.load_workbook(form(Kind.SALES_BY_CATEGORY, Format.XLSX)).worksheets[0]
        assert texts.in_xml(text) in [cell.value or "" for (cell, *_) in sheet.rows]
        assert text in parquet.read_table(form(Kind.SALES, Format.PARQUET))["product_name"].to_pylist()


def is_clean(text: str) -> bool:
    return texts.clean_old(text) == text


def taken(answer: Any) -> int:
    """Return the status of what was answered on purpose, whether it was taken or refused."""
    assert answer.status_code < 500
    return int(answer.status_code)


def read(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return str(answer.content.decode())


def log_line(text: str) -> None:
    record = logging.LogRecord("shop", logging.INFO, "", 0, "It says %s", (text,), None)
    line = logs.json().format(record)
    assert ("\n" in line, json.loads(line)["event"]) == (False, f"It says {logs.scrub(text)}")
