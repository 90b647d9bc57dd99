from functools import partial
from typing import Any, cast
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Q
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import conditional_page, require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers
from structlog.contextvars import bind_contextvars

from accounts.models import User
from durable import trace
from durable.errors import TemporaryError
from myproject import texts
from myproject.traces import waterfall
from myproject.web import kept
from myproject.web.moment import of_one_moment
from myproject.web.pages import staff_may
from myproject.web.paging import page_of

from . import basket as baskets
from . import drawings, payments, services, tasks
from .forms import SORTS, CardForm, CheckoutForm, ProductFilter, QuantityForm, categories
from .models import InventorySync, Order, Product, Status, actor

PER_PAGE = 12
DIFFERENCES_PER_PAGE = 50
# Of the same category, below a product.
MORE = 4


# --- Catalogue and basket: public ---


@login_not_required
@require_safe
@vary_on_headers("HX-Request", "HX-Target")
def catalogue(request: HttpRequest) -> HttpResponse:
    products = Product.objects.on_sale().order_by("name", "pk")
    # A form costs as much as a query, and most visitors ask for nothing.
    found = ProductFilter(request.GET, products).qs if request.GET else products
    context = {
        "page": page_of(request, found, PER_PAGE),
        "categories": [name for name, _ in categories()],
        "sorts": SORTS,
        # Asked first: a browser that is named below has nothing in its basket yet.
        "in_basket": baskets.quantities(request),
    }
    baskets.name_visitor(request)
    if request.headers.get("HX-Target") == "results":
        return render(request, "orders/_results.html", context)
    return _public_page(request, "orders/catalogue.html", context)


@login_not_required
@require_safe
def product(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Product.objects.on_sale(), slug=slug)
    context = _product_page(request, found)
    baskets.name_visitor(request)
    return _public_page(request, "orders/product.html", context, form=partial(QuantityForm, product=found))


@login_not_required
@require_safe
@cache_control(max_age=86400, public=True)
@conditional_page
def picture(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Product, slug=slug)
    drawing = drawings.template_of(found.name, found.category)
    context = {"title": texts.in_xml(found.name), "drawing": drawing, "hue": drawings.hue_of(found.sku, found.name)}
    return render(request, "orders/picture.svg", context, content_type="image/svg+xml")


@login_not_required
@require_safe
@cache_control(max_age=365 * 86400, public=True, immutable=True)
def thumbnail(request: HttpRequest, digest: str, width: int) -> FileResponse:
    """A public picture; no other file in the storage, such as a report, has a name like this."""
    name = f"thumbnails/{digest}-{width}.webp"
    try:
        return FileResponse(default_storage.open(name), content_type="image/webp")
    # Also when the storage is away: unlike an answer of ours, this one is not kept for a year.
    except (OSError, TemporaryError) as error:
        raise Http404("There is no such picture.") from error


@login_not_required
@require_safe
# Of a visitor, too, who has no session.
@cache_control(private=True, no_store=True)
def basket(request: HttpRequest) -> HttpResponse:
    return render(request, "orders/basket.html", {"basket": baskets.read(request)})


@login_not_required
@require_POST
@transaction.atomic
def basket_add(request: HttpRequest, slug: str) -> HttpResponse:
    found, contents = get_object_or_404(Product.objects.on_sale(), slug=slug), baskets.hold(request)
    form = QuantityForm(request.POST, product=found, in_basket=contents.quantity_of(found))
    if form.is_valid():
        contents.put(found, contents.quantity_of(found) + form.cleaned_data["quantity"])
    if request.headers.get("HX-Request"):
        return _added(request, found, form)
    if not form.is_valid():
        return render(request, "orders/product.html", _product_page(request, found) | {"form": form}, status=422)
    messages.success(request, f"{texts.isolated(found.name)} is in your basket.")
    return redirect("orders:basket")


@login_not_required
@require_POST
@transaction.atomic
def basket_change(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Product, slug=slug)
    form, contents, refused = QuantityForm(request.POST, product=found, least=0), baskets.hold(request), ""
    if not contents.quantity_of(found):
        # Another tab has removed it, or the session has ended and this is a visitor's basket, which a sign-in adds up.
        refused = f"{texts.isolated(found.name)} is not in this basket any more. Nothing was changed."
    elif form.is_valid():
        contents.put(found, form.cleaned_data["quantity"])
    else:
        refused = " ".join(map(str, form.errors["quantity"]))
    if request.headers.get("HX-Target") == "basket-live":
        return render(request, "orders/_basket.html", {"basket": baskets.read(request), "refused": refused})
    if request.headers.get("HX-Request"):
        return _added(request, found, form, refused)
    if refused:
        messages.error(request, refused)
    return redirect("orders:basket")


def _public_page(request: HttpRequest, template: str, context: dict[str, Any], **made_of_it: object) -> HttpResponse:
    """Render the page; it is the same for all who have nothing in their basket."""
    if context["in_basket"]:
        return render(request, template, context | made_of_it)
    return kept.page(request, template, context, **made_of_it)


def _product_page(request: HttpRequest, product: Product) -> dict[str, Any]:
    others = Product.objects.on_sale().filter(category=product.category).exclude(pk=product.pk)
    # What can be bought comes first.
    more = others.alias(is_sold_out=Q(stock=0)).order_by("is_sold_out", "name", "pk")[:MORE]
    return {"product": product, "more": list(more), "in_basket": baskets.quantities(request)}


def _added(request: HttpRequest, product: Product, form: QuantityForm, refused: str = "") -> HttpResponse:
    """Answer a script: the button anew, the number in the basket, and in words what was done."""
    if not refused and not form.is_valid():
        refused = " ".join(map(str, form.errors["quantity"]))
    inside = baskets.quantities(request)
    told = f"{texts.isolated(product.name)}: {inside.get(product.pk, 0)} in your basket."
    context = {"product": product, "form": form, "in_basket": inside, "refused": refused, "told": refused or told}
    context["on_page"] = request.headers.get("HX-Target") == "add-form"
    return render(request, "orders/_added.html", context, status=422 if refused else 200)


# --- Checkout and own orders ---


@transaction.atomic
def checkout(request: HttpRequest) -> HttpResponse:
    # Products that are added concurrently wait for the lock, and stay in the basket.
    contents = baskets.hold(request) if request.method == "POST" else baskets.read(request)
    form = CheckoutForm(request.POST or None)
    if form.is_valid() and (placed := Order.objects.of(request.user).filter(token=form.cleaned_data["token"]).first()):
        return redirect(placed)
    if not contents or contents.problems:
        for problem in contents.problems or ["Your basket is empty."]:
            messages.error(request, problem)
        return redirect("orders:basket")
    if form.is_valid() and form.cleaned_data["contents"] != contents.fingerprint:
        form.add_error(None, "Your basket or a price has changed. Please look at it again before you order.")
    if not form.is_valid():
        return render(request, "orders/checkout.html", {"form": form, "basket": contents})
    card, token = form.cleaned_data["card"], form.cleaned_data["token"]
    order = services.place_order(cast(User, request.user), contents.as_quantities(), card, token)
    bind_contextvars(order=order.reference)
    tasks.queue_new_order(order)
    contents.clear()
    return redirect(order)


@require_safe
def order_list(request: HttpRequest) -> HttpResponse:
    orders = Order.objects.of(request.user).order_by("-created_at", "-pk")
    return render(request, "orders/order_list.html", {"page": page_of(request, orders, PER_PAGE)})


@require_safe
@of_one_moment
def order_detail(request: HttpRequest, reference: str) -> HttpResponse:
    return render(request, "orders/order.html", _context(request, _visible_order(request, reference)))


@require_safe
@of_one_moment
def order_status(request: HttpRequest, reference: str) -> HttpResponse:
    """Render the live part of the order page."""
    return render(request, "orders/_order.html", _context(request, _visible_order(request, reference)))


@require_safe
def behind(request: HttpRequest, reference: str) -> HttpResponse:
    """Show what ran for the order, its payments and its confirmation."""
    order = _visible_order(request, reference)
    labels = [trace.label_of(row) for row in (order, *order.payments.order_by("pk"))]
    owes_mail = order.mail_due_at is not None and order.mail_sent_at is None
    links = {}
    if settings.SANDBOX_URL:
        links["Ledger"] = f"{settings.SANDBOX_URL}/ledger?{urlencode({'order': order.reference})}"
        links["Mailbox"] = f"{settings.SANDBOX_URL}/mail?{urlencode({'to': order.customer.email})}"
    return waterfall.answer(
        request,
        labels,
        title=f"Order {order}",
        back=order.get_absolute_url(),
        is_open=order.is_open or owes_mail,
        **links,
    )


@require_POST
def pay(request: HttpRequest, reference: str) -> HttpResponse:
    order, form = get_object_or_404(Order.objects.of(request.user), reference=reference), CardForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Please choose one of the cards.")
    elif services.pay_again(order, form.cleaned_data["card"]):
        tasks.process_order.delay_on_commit(order_id=order.pk)
    else:
        messages.info(request, "There is nothing to pay for this order now.")
    return redirect(order)


@require_POST
def cancel(request: HttpRequest, reference: str) -> HttpResponse:
    order = get_object_or_404(Order.objects.of(request.user), reference=reference)
    # Sent twice, the other request has cancelled it.
    if not order.mark_cancelled() and not Order.objects.filter(pk=order.pk, status=Status.CANCELLED).exists():
        messages.error(request, "It is too late to cancel this order.")
    return redirect(order)


@require_POST
@staff_may("orders.change_order")
def requeue(request: HttpRequest, reference: str) -> HttpResponse:
    order = get_object_or_404(Order, reference=reference)
    Order.objects.filter(pk=order.pk).mark_requeued(f"by {actor(request.user)}")
    tasks.process_order.delay_on_commit(order_id=order.pk)
    return redirect(order)


@require_http_methods(["GET", "POST"])
@staff_may("orders.refund_order")
@transaction.atomic
def refund(request: HttpRequest, reference: str) -> HttpResponse:
    """Ask whether the order is really to be refunded; by POST, refund it, if it is still what the page said."""
    order = get_object_or_404(Order.objects.select_for_update(), reference=reference)
    seen = request.POST.get("seen", "")
    if order.can_refund and seen != order.shown:
        if request.method == "POST":
            messages.error(request, f"Nothing was done, since this is no longer so: “{seen}”. Please look again.")
        return render(request, "orders/refund.html", {"order": order})
    if request.method == "POST" and services.want_refund(order, by=actor(request.user)):
        tasks.refund_order.delay_on_commit(order_id=order.pk)
    else:
        messages.info(request, "There is nothing to refund for this order now.")
    return redirect(order)


@require_POST
@staff_may("orders.change_order")
def restart(request: HttpRequest, reference: str) -> HttpResponse:
    order = get_object_or_404(Order, reference=reference)
    if services.restart(order, by=actor(request.user)):
        tasks.process_order.delay_on_commit(order_id=order.pk)
    else:
        messages.info(request, "Only a rejected order can be restarted.")
    return redirect(order)


@require_POST
@staff_may("orders.change_order")
def unflag(request: HttpRequest, reference: str) -> HttpResponse:
    order = get_object_or_404(Order, reference=reference)
    flagged = Order.objects.filter(pk=order.pk, flag_reason=request.POST.get("seen", ""))
    if not flagged.unflag(f"by {actor(request.user)}"):
        messages.error(request, "The order does not need a person for that reason any more. Please look again.")
    return redirect(order)


# --- The warehouse ---


@require_http_methods(["GET", "POST"])
@staff_may("orders.view_inventorysync", post="orders.add_inventorysync")
def sync_list(request: HttpRequest) -> HttpResponse:
    """Show the runs of the synchronisation; by POST, start one."""
    if request.method == "POST" and settings.WAREHOUSE_URL:
        run = InventorySync.objects.open_one()
        tasks.sync_inventory.delay_on_commit(sync_id=run.pk)
        return redirect(run)
    runs = page_of(request, InventorySync.objects.with_differences().order_by("-pk"), PER_PAGE)
    context = {"page": runs, "is_on": bool(settings.WAREHOUSE_URL)}
    return render(request, "orders/sync_list.html", context)


@require_safe
@staff_may("orders.view_inventorysync")
def sync_detail(request: HttpRequest, pk: int) -> HttpResponse:
    run = get_object_or_404(InventorySync.objects.with_differences(), pk=pk)
    differences = page_of(request, run.differences.order_by("kind", "sku"), DIFFERENCES_PER_PAGE)
    context = {"run": run, "page": differences}
    return render(request, "orders/sync.html", context)


@require_safe
@staff_may("orders.view_inventorysync")
def sync_status(request: HttpRequest, pk: int) -> HttpResponse:
    """Render the live part of the run's page; when the run has ended, reload the page."""
    run = get_object_or_404(InventorySync.objects.with_differences(), pk=pk)
    answer = render(request, "orders/_sync.html", {"run": run})
    if not run.is_unfinished:
        answer["HX-Refresh"] = "true"
    return answer


# --- The payment provider ---


@csrf_exempt
@login_not_required
@require_POST
def payment_webhook(request: HttpRequest) -> HttpResponse:
    """Receive a webhook. A forged one is answered with 400, which Django logs with the reason."""
    try:
        notice = payments.read_notice(request.body, request.headers.get("Stripe-Signature", ""))
    except payments.NotGenuine as error:
        return HttpResponse(status=400, reason=f"Webhook refused, {error}")
    for pk in services.record(notice) if notice else []:
        tasks.send_order_confirmation.delay_on_commit(order_id=pk)
    return HttpResponse()


def _visible_order(request: HttpRequest, reference: str) -> Order:
    return get_object_or_404(Order.objects.visible_to(request.user), reference=reference)


def _context(request: HttpRequest, order: Order) -> dict[str, object]:
    attempts = list(order.payments.order_by("attempt"))
    return {
        "order": order,
        "is_own": order.customer_id == request.user.pk,
        "items": order.items.select_related("product").order_by("pk"),
        "events": order.events.order_by("created_at", "pk"),
        "payments": attempts,
        "is_refunding": any(payment.refund_due_at for payment in attempts),
        "can_refund": any(payment.can_refund for payment in attempts),
        # Made where it is shown.
        "card_form": CardForm,
    }
