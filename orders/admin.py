import uuid
from collections.abc import Callable
from functools import reduce
from operator import attrgetter, or_
from typing import Any, ClassVar, NamedTuple

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.cache import cache
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from structlog.contextvars import bound_contextvars

from durable.errors import TemporaryError
from myproject.web.admin import ActingAdmin, EditedForm, OwesMailAdmin, ReadOnlyAdmin

from . import money, pictures, services, tasks, thumbnails
from .forms import orders_like, people_like, reference_starts
from .models import (
    HIGHEST_STOCK,
    Digest,
    InventoryDifference,
    InventorySync,
    Order,
    OrderEvent,
    OrderItem,
    Payment,
    Product,
    ProductImport,
    actor,
)

# Seconds for which a form that is sent again is known.
REMEMBERED = 24 * 3600
SETTLED = "Have these been looked into, each for the reason that it says?"


class TokenField(forms.UUIDField):
    """Names a rendered form, so that it has its effect once, however often it is sent."""

    widget = forms.HiddenInput

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False

    @staticmethod
    def is_used(token: uuid.UUID | None) -> bool:
        return bool(token and cache.get(f"sent-{token}"))

    @staticmethod
    def use(token: uuid.UUID | None) -> bool:
        """Record in this transaction that the form was sent; False if it was before. A program may send none."""
        return token is None or bool(cache.add(f"sent-{token}", True, timeout=REMEMBERED))


class ProductForm(EditedForm):
    token = TokenField(required=False, initial=uuid.uuid4)
    upload_picture = forms.FileField(
        required=False,
        help_text=f"{pictures.READABLE}, up to 10 MB and 52 million pixels (WebP: 26); it is cut to four by three.",
        widget=forms.FileInput(
            attrs={"accept": "image/jpeg,image/png,image/webp,image/gif,image/avif,image/heic,image/heif"}
        ),
    )
    remove_picture = forms.BooleanField(required=False, help_text="Show the drawing again.")
    adjust_stock = forms.IntegerField(
        required=False,
        initial=0,
        max_value=1_000_000,
        help_text="Units to add, or with a minus to take away; orders go on meanwhile.",
    )

    def clean_adjust_stock(self) -> int:
        by: int = self.cleaned_data["adjust_stock"] or 0
        if TokenField.is_used(self.cleaned_data.get("token")):
            return 0
        if self.instance.stock + by < 0:
            raise forms.ValidationError(f"There are only {self.instance.stock} to take away.")
        if self.instance.stock + by > HIGHEST_STOCK:
            raise forms.ValidationError(f"The stock can be {HIGHEST_STOCK:,} at most.")
        return by

    def clean_upload_picture(self) -> UploadedFile | None:
        upload: UploadedFile | None = self.cleaned_data["upload_picture"]
        if upload:
            try:
                self.cleaned_data["picture_kind"] = pictures.check(upload, upload.size or 0)
            except pictures.Unusable as error:
                raise forms.ValidationError(str(error)) from error
        return upload


@admin.register(Product)
class ProductAdmin(ActingAdmin):
    task_argument = "product_id"
    form = ProductForm
    list_display = ["name", "sku", "category", "price", "stock", "is_active", "picture_status"]
    list_filter = ["is_active", "category", "picture_status"]
    search_fields = ["name", "sku"]
    ordering = ["name"]
    readonly_fields = ["stock", "warehouse_units", "slug", "shown_picture", "picture_status", "picture_error"]
    actions = ["withdraw"]

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        # First of all: orders must not wait for a slow storage, behind the row's lock.
        picture = self._store_picture(request, form.cleaned_data)
        super().save_model(request, obj, form, change)
        self._adjust_stock(request, obj, form.cleaned_data)
        if picture:
            thumbnails.use_picture(obj, picture)
            tasks.make_thumbnails.delay_on_commit(product_id=obj.pk)
        elif form.cleaned_data["remove_picture"]:
            thumbnails.remove_picture(obj)

    def _adjust_stock(self, request: HttpRequest, product: Product, cleaned: dict[str, Any]) -> None:
        if not cleaned["adjust_stock"] or not TokenField.use(cleaned.get("token")):
            return
        if not Product.objects.filter(pk=product.pk).adjust_stock(cleaned["adjust_stock"]):
            self.message_user(request, "The stock stays: it has changed too much meanwhile.", messages.ERROR)

    def _store_picture(self, request: HttpRequest, cleaned: dict[str, Any]) -> str:
        if not cleaned["upload_picture"]:
            return ""
        try:
            return thumbnails.store_picture(cleaned["upload_picture"], cleaned["picture_kind"])
        except (OSError, TemporaryError) as error:
            self.message_user(request, f"The picture was not stored, try again later: {error}", messages.ERROR)
            return ""

    @admin.display(description="Picture")
    def shown_picture(self, product: Product) -> str:
        if not product.thumbnails:
            return "The drawing"
        address = reverse("orders:thumbnail", args=[product.thumbnails, 400])
        return format_html('<img src="{}" alt="" width="200" height="150">', address)

    def has_delete_permission(self, request: HttpRequest, obj: Product | None = None) -> bool:
        return False

    @admin.action(description="Withdraw from sale")
    def withdraw(self, request: HttpRequest, products: QuerySet[Product]) -> None:
        count = products.update(is_active=False)
        self.message_user(request, f"{count} withdrawn; orders placed before are still fulfilled.")


class Lines(admin.TabularInline):
    extra = 0
    can_delete = False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ItemLines(Lines):
    model = OrderItem
    fields = ["name", "price", "quantity"]


class PaymentLines(Lines):
    model = Payment
    fields = ["attempt", "card", "amount", "currency", "status", "provider_id", "refund_id", "reason", "created_at"]
    show_change_link = True


class EventLines(Lines):
    model = OrderEvent
    fields = ["created_at", "kind", "detail", "task_id", "worker"]
    ordering = ["created_at", "pk"]


class NeedsPerson(admin.SimpleListFilter):
    title, parameter_name = "needs a person", "needs_person"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(flagged_at__isnull=self.value() == "no") if self.value() else queryset


class Search(NamedTuple):
    """A way to search a list: what it finds, for its help, and the rule for what is typed, as a whole."""

    finds: str
    rule: Callable[[str], Q]


class GrowingAdmin(ReadOnlyAdmin):
    """A list of what is kept for good: it is searched and sorted only by what has an index."""

    # How each of `search_fields` is searched.
    searches: ClassVar[dict[str, Search]]
    sortable_by: ClassVar[list[str] | tuple[str, ...] | None] = ()

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        changes = super().get_changelist_instance(request)
        finds = [self.searches[name].finds for name in self.get_search_fields(request)]
        changes.search_help_text = f"Finds {' or '.join(finds)}."
        return changes

    def search(self, request: HttpRequest, rows: QuerySet[Any], text: str) -> tuple[QuerySet[Any], bool]:
        # Not those whose field this person may not see.
        found = (self.searches[name].rule(text) for name in self.get_search_fields(request))
        return rows.filter(reduce(or_, found, Q(pk__in=[]))) if text else rows, False


OF_ORDER = Search("the start of the order’s reference", lambda text: Q(order__in=orders_like(text)))


@admin.register(Order)
class OrderAdmin(OwesMailAdmin, GrowingAdmin):
    task_argument = "order_id"
    list_display = ["reference", "customer", "pill", "amount", "created_at", "completed_at", "flag_reason"]
    list_filter = [NeedsPerson, "status", "created_at"]
    list_select_related = ["customer"]
    searches = {
        "reference": Search("the start of a reference", reference_starts),
        "customer__email": Search(
            "a part of the customer’s name or address", lambda text: Q(customer__in=people_like(text))
        ),
    }
    search_fields = list(searches)
    sortable_by = ("reference", "completed_at")
    # By primary key, which is the order in which they were placed.
    ordering = ["-pk"]
    inlines = [ItemLines, PaymentLines, EventLines]
    actions = ["requeue", "restart", "retry_payment", "refund", "unflag", *OwesMailAdmin.actions]

    @admin.display(description="total", ordering="total")
    def amount(self, row: Order) -> str:
        return money.text(row.total, row.currency)

    def queue_mail(self, row: Order) -> None:
        with bound_contextvars(**row.log_keys):
            tasks.send_order_confirmation.delay_on_commit(order_id=row.pk)

    @admin.action(description="Queue again")
    def requeue(self, request: HttpRequest, orders: QuerySet[Order]) -> None:
        requeued = Order.objects.filter(pk__in=orders).mark_requeued(f"by {actor(request.user)}")
        for pk, reference in requeued.items():
            with bound_contextvars(order=reference):
                tasks.process_order.delay_on_commit(order_id=pk)
        self.message_user(request, f"{len(requeued)} queued again.")

    @admin.action(description="Restart rejected orders")
    def restart(self, request: HttpRequest, orders: QuerySet[Order]) -> None:
        count = self._each(request, orders, services.restart, tasks.process_order)
        self.message_user(request, f"{count} restarted; others were not rejected.")

    @admin.action(description="Retry failed payments with the same card")
    @transaction.atomic
    def retry_payment(self, request: HttpRequest, orders: QuerySet[Order]) -> HttpResponse | None:
        if self.are_too_many(request, orders):
            return None
        if page := self._ask(request, orders, "Charge the same card again"):
            return page
        count = self._each(request, orders, services.retry_payment, tasks.process_order)
        self.message_user(request, f"{count} will be charged again; for others no payment has failed.")
        return None

    def has_refund_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("orders.refund_order")

    @admin.action(description="Refund", permissions=["refund"])
    @transaction.atomic
    def refund(self, request: HttpRequest, orders: QuerySet[Order]) -> HttpResponse | None:
        if self.are_too_many(request, orders):
            return None
        if page := self._ask(request, orders, "Refund all that was paid"):
            return page
        count = self._each(request, orders, services.want_refund, tasks.refund_order)
        self.message_user(request, f"{count} will be refunded; for others nothing was paid, or it is under way.")
        return None

    @admin.action(description="Settled: no longer needs a person")
    @transaction.atomic
    def unflag(self, request: HttpRequest, orders: QuerySet[Order]) -> HttpResponse | None:
        if self.are_too_many(request, orders):
            return None
        flagged, words = Order.objects.filter(pk__in=orders).flagged(), {"title": "Settled", "question": SETTLED}
        if page := self.ask(request, flagged, lambda order: f"{order}: {order.flag_reason}", **words):
            return page
        self.message_user(request, f"{flagged.unflag(f'by {actor(request.user)}')} settled.")
        return None

    def _each(
        self, request: HttpRequest, orders: QuerySet[Order], change: Callable[[Order, str], bool], task: Any
    ) -> int:
        """Change each order in turn, and queue the task for each changed one; return how many changed."""
        changed = [order for order in orders.order_by("pk") if change(order, actor(request.user))]
        for order in changed:
            with bound_contextvars(order=order.reference):
                task.delay_on_commit(order_id=order.pk)
        return len(changed)

    def _ask(self, request: HttpRequest, orders: QuerySet[Order], title: str) -> HttpResponse | None:
        rows = Order.objects.filter(pk__in=orders).prefetch_related("payments")
        return self.ask(request, rows, attrgetter("shown"), title=title, question=f"{title} for these orders?")


@admin.register(Payment)
class PaymentAdmin(GrowingAdmin):
    list_display = ["order", "attempt", "card", "amount", "currency", "pill", "provider_id", "created_at"]
    list_filter = ["status"]
    list_select_related = ["order"]
    searches = {
        "order__reference": OF_ORDER,
        "provider_id": Search("the whole of the provider’s id", lambda text: Q(provider_id=text)),
    }
    search_fields = list(searches)
    ordering = ["-pk"]


@admin.register(OrderEvent)
class OrderEventAdmin(GrowingAdmin):
    list_display = ["created_at", "order", "kind", "detail", "task_id", "worker"]
    list_filter = ["kind", "created_at"]
    list_select_related = ["order"]
    searches = {"order__reference": OF_ORDER}
    search_fields = list(searches)
    ordering = ["-pk"]


class DigestState(admin.SimpleListFilter):
    title, parameter_name = "state", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("sent", "Sent"), ("waiting", "Waiting"), ("skipped", "Skipped"), ("failed", "Failed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        states = {
            "sent": Q(mail_sent_at__isnull=False),
            "waiting": Q(mail_sent_at=None, mail_due_at__isnull=False),
            "skipped": ~Q(skip_reason=""),
            "failed": Q(mail_sent_at=None, mail_due_at=None, skip_reason=""),
        }
        return queryset.filter(states.get(self.value() or "", Q()))


@admin.register(Digest)
class DigestAdmin(ReadOnlyAdmin):
    list_display = ["person", "week", "outcome", "mail_sent_at"]
    list_filter = [DigestState, "skip_reason"]
    list_select_related = ["person"]
    search_fields = ["person__email"]
    ordering = ["-week", "-person"]
    date_hierarchy = "week"


@admin.register(ProductImport)
class ProductImportAdmin(ReadOnlyAdmin):
    task_argument = "import_id"
    list_display = ["original_name", "requested_by", "pill", "rows_done", "rejected_count", "created_at", "error"]
    list_filter = ["status", "created_at"]
    list_select_related = ["requested_by"]
    search_fields = ["id", "original_name", "requested_by__email"]
    ordering = ["-created_at"]
    # The file is not served; the rejected rows are on the import's page.
    exclude = ["file", "token"]


@admin.register(InventorySync)
class InventorySyncAdmin(ReadOnlyAdmin):
    task_argument = "sync_id"
    list_display = ["__str__", "pill", "created_at", "finished_at", "version", "seen", "changed", "error"]
    list_filter = ["status", "created_at"]
    ordering = ["-pk"]


@admin.register(InventoryDifference)
class InventoryDifferenceAdmin(ReadOnlyAdmin):
    list_display = ["sku", "kind", "detail", "sync"]
    list_filter = ["kind", "sync__created_at"]
    list_select_related = ["sync"]
    search_fields = ["sku"]
    ordering = ["-sync", "kind", "sku"]
