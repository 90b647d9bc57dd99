"""Live pages in a real browser: they follow a push, and poll where none comes."""

import socket
import threading
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.management import call_command
from playwright.sync_api import Browser, Page, expect

from accounts.models import User
from orders.models import Order
from tests.factories import PASSWORD, make_report, make_user, place_order
from tests.ports import free_port
from tests.shop import Shop

pytestmark = pytest.mark.operations
# Shorter than a page waits that push lets know: what is seen within it came by push, or by polling each second.
SOON = 12_000


@pytest.fixture
def tab(browser: Browser, shop: Shop) -> Iterator[Page]:
    """Return a page whose errors in the console are meant: what it listens to dies."""
    # It has the order for as long as the test; a worker would go on with it.
    shop.pause("worker")
    context = browser.new_context(base_url=settings.SITE_URL)
    yield context.new_page()
    context.close()
    shop.resume("worker")
    shop.heal()


def watch(tab: Page) -> Order:
    """Open the page of a new order as its customer."""
    order = place_order(make_user())
    sign_in(tab, order.customer)
    tab.goto(order.get_absolute_url())
    return order


def sign_in(tab: Page, person: User) -> None:
    tab.goto("/accounts/login/")
    tab.locator("[name=login]").fill(person.email)
    tab.locator("[name=password]").fill(PASSWORD)
    tab.locator("main form button[type=submit]").click()
    tab.wait_for_url("**/dashboard/")


def expect_push(tab: Page, state: str) -> None:
    expect(tab.locator("html")).to_have_attribute("data-push", state, timeout=SOON)


def test_page_follows_by_push(tab: Page) -> None:
    order = watch(tab)
    expect_push(tab, "live")

    order.mark_cancelled()

    expect(tab.locator("#order-live")).to_contain_text("Cancelled", timeout=SOON)


def test_finished_order_still_hears_what_comes(tab: Page) -> None:
    order = watch(tab)
    order.mark_cancelled()
    expect(tab.locator("#order-live")).to_contain_text("Cancelled", timeout=SOON)
    expect_push(tab, "live")
    tab.reload()
    expect_push(tab, "live")

    Order.objects.filter(pk=order.pk).flag("Odd.")

    # It does not poll any more: only push can have brought it.
    expect(tab.locator("#order-live")).to_contain_text("Our staff is looking into it", timeout=SOON)


def test_list_of_staff_follows_and_stays_while_rows_are_ticked(tab: Page, staff: User) -> None:
    first = place_order()
    sign_in(tab, staff)
    choosing, looking = tab, tab.context.new_page()
    for page in (choosing, looking):
        page.goto("/back-office/orders/")
        expect_push(page, "live")
    tick = choosing.get_by_label(f"Order {first.reference}")
    tick.check()

    second = place_order()

    expect(looking.locator("#staff-orders-live")).to_contain_text(second.reference, timeout=SOON)
    expect(tick).to_be_checked()
    expect(choosing.locator("#staff-orders-live")).not_to_contain_text(second.reference)
    tick.uncheck()
    expect(choosing.locator("#staff-orders-live")).to_contain_text(second.reference, timeout=SOON)


def test_page_that_only_waits_gets_a_new_token_for_an_old_one(tab: Page) -> None:
    order = watch(tab)
    order.mark_cancelled()
    tab.reload()
    expect_push(tab, "live")
    tab.evaluate("document.querySelector('#order-live').dataset.live = 'too-old'")

    # As after the night in which the laptop slept.
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect_push(tab, "lost")

    expect_push(tab, "live")


def test_page_polls_while_the_process_is_dead_and_follows_again_when_it_is_back(tab: Page, shop: Shop) -> None:
    order = watch(tab)
    expect_push(tab, "live")

    shop.kill("live")
    expect_push(tab, "lost")
    Order.objects.filter(pk=order.pk).flag("Odd.")
    expect(tab.locator("#order-live")).to_contain_text("Our staff is looking into it", timeout=SOON)

    shop.start("live")
    expect_push(tab, "live")
    order.mark_cancelled()
    expect(tab.locator("#order-live")).to_contain_text("Cancelled", timeout=SOON)


def test_page_polls_when_push_is_frozen(tab: Page, shop: Shop) -> None:
    order = watch(tab)
    expect_push(tab, "live")

    shop.pause("live")
    try:
        expect(tab.locator("html")).to_have_attribute("data-push", "lost", timeout=2 * SOON)
        order.mark_cancelled()
        expect(tab.locator("#order-live")).to_contain_text("Cancelled", timeout=SOON)
    finally:
        shop.resume("live")


def hold_back(listening: socket.socket) -> None:
    """Be a proxy that hands on the head of an answer, and keeps its body until the end."""
    while True:
        try:
            visitor, _ = listening.accept()
        except OSError:
            return
        host, port = settings.LIVE_BIND.rsplit(":", 1)
        server = socket.create_connection((host, int(port)))
        server.sendall(visitor.recv(65536))
        head = b""
        while b"\r\n\r\n" not in head:
            head += server.recv(65536)
        visitor.sendall(head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        kept.append((visitor, server))


kept: list[tuple[socket.socket, socket.socket]] = []


def test_page_polls_behind_a_proxy_that_holds_events_back(tab: Page) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=hold_back, args=[listening], daemon=True).start()
        away = f"localhost:{settings.LIVE_PORT}", f"127.0.0.1:{port}"
        tab.route("**/live/?*", lambda route: route.continue_(url=route.request.url.replace(*away)))
        order = watch(tab)

        order.mark_cancelled()

        expect(tab.locator("#order-live")).to_contain_text("Cancelled", timeout=SOON)
        assert kept
        assert tab.locator("html").get_attribute("data-push") != "live"
    for visitor, server in kept:
        visitor.close()
        server.close()


def test_lost_connection_is_told_and_forgotten_when_it_is_back(tab: Page) -> None:
    order = watch(tab)
    expect_push(tab, "live")

    tab.context.set_offline(True)
    expect(tab.locator("#connection")).to_contain_text("connection is lost", timeout=2 * SOON)

    tab.context.set_offline(False)
    order.mark_cancelled()
    expect(tab.locator("#order-live")).to_contain_text("Cancelled", timeout=SOON)
    expect(tab.locator("#connection")).to_be_empty()


def test_lists_and_the_dashboard_of_staff_follow(tab: Page, shop: Shop) -> None:
    call_command("seed_demo", "--empty")
    tab.goto("/accounts/login/")
    tab.locator("[name=login]").fill("staff@example.com")
    tab.locator("[name=password]").fill("lantern-loom")
    tab.locator("main form button[type=submit]").click()
    tab.wait_for_url("**/dashboard/")
    expect_push(tab, "live")

    order = place_order()

    expect(tab.locator("#now-live")).to_contain_text(order.reference, timeout=SOON)
    expect(tab.locator("[data-count=pending]")).to_have_class("changed")

    tab.goto("/reports/")
    expect_push(tab, "live")
    report = make_report(User.objects.get(email="staff@example.com"))
    expect(tab.locator("#reports-live")).to_contain_text("Queued", timeout=SOON)
    report.mark_cancelled()
    expect(tab.locator("#reports-live")).to_contain_text("Cancelled", timeout=SOON)
