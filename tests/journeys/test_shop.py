"""The whole path in a real browser, against the real processes."""

import csv
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from playwright.sync_api import Page, expect

from orders.models import Card, Order, Product, Status
from reports.models import Report
from tests.factories import PASSWORD, make_product, make_user
from tests.shop import Shop, wait_for

pytestmark = pytest.mark.every_broker

SLOWEST = 30_000


@pytest.fixture(autouse=True)
def catalogue(shop: Shop) -> None:
    call_command("seed_demo", empty=True)


def sign_up(page: Page, email: str) -> None:
    page.goto("/accounts/signup/")
    page.locator("[name=email]").fill(email)
    page.locator("[name=name]").fill("Alice")
    page.locator("[name=password1]").fill(PASSWORD)
    page.locator("[name=password2]").fill(PASSWORD)
    page.locator("main form button[type=submit]").click()


def log_in(page: Page, email: str, password: str = PASSWORD) -> None:
    page.goto("/accounts/login/")
    page.locator("[name=login]").fill(email)
    page.locator("[name=password]").fill(password)
    page.locator("main form button[type=submit]").click()
    page.wait_for_url("**/dashboard/")


def order(page: Page, product: Product, quantity: int = 1, card: str = Card.VISA) -> None:
    """Put the product into the basket and check out; ends on the order's page."""
    put_into_basket(page, product, quantity)
    page.goto("/checkout/")
    page.locator(f"[name=card][value={card}]").check()
    page.locator("main form button[type=submit]").click()
    page.wait_for_url(re.compile(r"/orders/[0-9A-Z]{4}-[0-9A-Z]{4}/$"))


def put_into_basket(page: Page, product: Product, quantity: int = 1) -> None:
    """By the button of its page, which a script answers where it is; without scripts the basket follows."""
    page.goto(product.get_absolute_url())
    page.locator("#add-form [name=quantity]").fill(str(quantity))
    page.get_by_role("button", name="Add to basket").click()
    expect(page.locator(".toast, .message-success")).to_contain_text("in your basket")


def mails_to(shop: Shop, email: str) -> list[str]:
    return [mail["subject"] for mail in shop.sandbox(f"/mail.json?to={email}")]


@pytest.mark.every_store
def test_path_from_registration_to_report_when_all_is_well(page: Page, shop: Shop, tmp_path: Path) -> None:
    # The mailbox remembers what other tests have sent to theirs.
    sign_up(page, "ada@example.com")
    page.wait_for_url("**/dashboard/")
    order(page, Product.objects.on_sale().filter(stock__gt=2).order_by("pk")[0], quantity=2)

    # The page follows the worker by itself.
    expect(page.locator("#order-live")).to_contain_text("Completed", timeout=SLOWEST)
    placed = Order.objects.get()
    wait_for(lambda: any(placed.reference in subject for subject in mails_to(shop, "ada@example.com")), "the mail")
    wait_for(lambda: len(mails_to(shop, "ada@example.com")) == 3, "welcome, verification and confirmation")

    page.goto("/accounts/logout/")
    page.locator("main form button[type=submit]").click()
    log_in(page, "staff@example.com", "lantern-loom")
    page.goto("/reports/")
    page.get_by_label("What").select_option("Order lines")
    page.get_by_label("Format").select_option("CSV")
    page.locator("main form button[type=submit]").click()
    expect(page.locator("#report-live")).to_contain_text("Ready", timeout=SLOWEST)
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("Download")).click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text("utf-8-sig").splitlines()))
    assert [(row["order_reference"], row["units"]) for row in rows] == [(placed.reference, "2")]

    page.goto("/admin/django_celery_results/taskresult/?task_name=orders.tasks.process_order")
    if settings.RESULTS_IN_DATABASE:
        page.get_by_role("link", name=f"order {placed.pk}").click()
        expect(page.locator("#content")).to_contain_text(placed.reference)
    else:
        expect(page.get_by_text("New results are not kept in the database")).to_be_visible()
    page.goto("/flower/")
    page.wait_for_url(f"{settings.FLOWER_URL}/**")
    page.goto(f"{settings.FLOWER_URL}/tasks?name=orders.tasks.process_order")
    expect(page.locator("#tasks-table")).to_contain_text("process_order", timeout=SLOWEST)


def test_declined_card_is_explained_and_another_one_completes(page: Page, shop: Shop) -> None:
    customer, product = make_user(), make_product(stock=5)
    log_in(page, customer.email)
    order(page, product, card=Card.DECLINED)
    expect(page.locator("#order-live")).to_contain_text("declined", timeout=SLOWEST)
    product.refresh_from_db()
    assert product.stock == 5

    page.locator(f"[name=card][value={Card.SLOW}]").check()
    page.locator("form[action$='/pay/'] button[type=submit]").click()

    expect(page.locator("#order-live")).to_contain_text("Completed", timeout=SLOWEST)
    product.refresh_from_db()
    assert product.stock == 4
    assert [payment.status for payment in Order.objects.get().payments.order_by("attempt")] == ["declined", "succeeded"]


def test_order_is_rejected_with_its_reason_when_stock_went_meanwhile(page: Page, shop: Shop) -> None:
    customer, product = make_user(), make_product(name="Last lamp", stock=1)
    log_in(page, customer.email)
    put_into_basket(page, product)
    page.goto("/checkout/")
    shop.kill("worker")
    page.locator("main form button[type=submit]").click()
    page.wait_for_url(re.compile(r"/orders/[0-9A-Z-]{9}/$"))
    Product.objects.filter(pk=product.pk).adjust_stock(-1)

    shop.heal()

    expect(page.locator("#order-live")).to_contain_text("Out of stock: Last lamp", timeout=SLOWEST)


def test_checkout_places_one_order_when_the_button_is_pressed_twice(page: Page, shop: Shop) -> None:
    customer, product = make_user(), make_product()
    log_in(page, customer.email)
    put_into_basket(page, product)
    page.goto("/checkout/")

    page.locator("main form button[type=submit]").dblclick()

    # Not `wait_for_url`: the second press ends the navigation of the first, which it takes for a failure.
    expect(page).to_have_url(re.compile(r"/orders/[0-9A-Z-]{9}/$"), timeout=SLOWEST)
    expect(page.locator("#order-live")).to_contain_text("Completed", timeout=SLOWEST)
    placed = Order.objects.get()
    assert placed.status == Status.COMPLETED
    assert len(shop.sandbox(f"/ledger.json?order={placed.reference}")["charges"]) == 1


def test_order_page_follows_the_worker_without_javascript(browser: object, shop: Shop) -> None:
    customer, product = make_user(), make_product()
    context = browser.new_context(base_url=settings.SITE_URL, java_script_enabled=False)  # type: ignore[attr-defined]
    page = context.new_page()
    log_in(page, customer.email)

    order(page, product)

    expect(page.locator("#order-live")).to_contain_text("Completed", timeout=SLOWEST)
    context.close()


@pytest.mark.parametrize("person", ["nobody", "customer"])
def test_flower_is_closed_to_all_but_staff(person: str, page: Page, shop: Shop) -> None:
    if person == "customer":
        log_in(page, make_user().email)

    page.goto(f"{settings.FLOWER_URL}/workers")

    assert not page.url.startswith(settings.FLOWER_URL)


def test_staff_who_asks_flower_for_a_page_logs_in_and_gets_it(page: Page, shop: Shop) -> None:
    wanted = f"{settings.FLOWER_URL}/tasks?name=orders.tasks.process_order"
    page.goto(wanted)

    # The answer to this form leads to another origin.
    page.locator("[name=login]").fill("staff@example.com")
    page.locator("[name=password]").fill("lantern-loom")
    page.locator("main form button[type=submit]").click()

    page.wait_for_url(wanted)
    expect(page.locator("#tasks-table")).to_be_visible()


def test_report_file_is_gone_for_others(page: Page, shop: Shop) -> None:
    report = Report.objects.create(
        requested_by=make_user(is_staff=True),
        start="2026-01-01",
        end="2026-01-31",
        status="ready",
        file="reports/x.csv",
    )
    log_in(page, make_user(is_staff=True, is_superuser=True).email)

    answer = page.goto(f"{report.get_absolute_url()}download/")

    assert answer is not None
    assert answer.status == 404


def test_shelves_fill_the_basket_without_being_left(page: Page, shop: Shop) -> None:
    page.goto("/?q=a")
    card = page.locator(".card", has=page.get_by_role("button", name=re.compile("^Add"))).first
    card.get_by_role("button", name=re.compile("^Add")).press("Enter")

    expect(page.locator(".toast")).to_contain_text("1 in your basket")
    expect(page.locator("#basket-link .count")).to_contain_text("1")
    # Until htmx knows the new form, the browser sends it by itself.
    expect(page.locator(".htmx-added")).to_have_count(0)
    # The keyboard goes on where it was.
    page.keyboard.press("Enter")
    expect(page.locator(".stepper output").first).to_have_text("2")
    page.get_by_role("button", name=re.compile("less$")).first.click()
    expect(page.locator(".stepper output").first).to_have_text("1")
    assert "/?q=a" in page.url


def test_shelves_follow_what_is_typed_and_chosen(page: Page, shop: Shop) -> None:
    page.goto("/")
    page.get_by_label("Search the shop").press_sequentially("lantern")
    expect(page.locator(".results-head")).to_contain_text("for “lantern”")
    page.get_by_label("Sort by").select_option("-price")

    page.wait_for_url("**/*sort=-price*")
    expect(page.locator(".results-head")).to_contain_text("for “lantern”")
    prices = [float(re.sub(r"[^0-9.]", "", price)) for price in page.locator(".card .price").all_inner_texts()]
    assert prices == sorted(prices, reverse=True)


def test_theme_holds_on_the_next_page_and_in_the_admin(page: Page, shop: Shop) -> None:
    log_in(page, "staff@example.com", "lantern-loom")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    with page.expect_navigation():
        page.get_by_role("button", name="Dark").click()

    dark = page.evaluate(paper)
    assert dark != light
    page.goto("/basket/")
    assert page.evaluate(paper) == dark
    with page.expect_navigation():
        page.get_by_role("button", name="Light").click()
    assert page.evaluate(paper) == light
    page.goto("/admin/")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") in ("normal", "light")
