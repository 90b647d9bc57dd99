from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from myproject.admin import ReadOnlyAdmin

from . import tasks
from .models import Kind, Order, OrderEvent, OrderItem, Payment, Product


class ProductForm(forms.ModelForm):
    adjust_stock = forms.IntegerField(
        required=False,
        initial=0,
        max_value=1_000_000,
        help_text="Units to add, or with a minus to take away; orders go on meanwhile.",
    )

    def clean_adjust_stock(self) -> int:
        by: int = self.cleaned_data["adjust_stock"] or 0
        if self.instance.stock + by < 0:
            raise forms.ValidationError(f"There are only {self.instance.stock} to take away.")
        return by


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    form = ProductForm
    list_display = ["name", "sku", "category", "price", "stock", "is_active"]
    list_filter = ["is_active", "category"]
    search_fields = ["name", "sku"]
    ordering = ["name"]
    readonly_fields = ["stock", "slug"]
    actions = ["withdraw"]

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        # Only what was edited: the stock that this form was opened with may be sold by now.
        if change:
            obj.save(update_fields=[name for name in form.changed_data if name != "adjust_stock"])
        else:
            obj.save()
        if not Product.objects.filter(pk=obj.pk).adjust_stock(form.cleaned_data["adjust_stock"]):
            self.message_user(request, "The stock stays: what you took away was sold meanwhile.", messages.ERROR)

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
    fields = ["attempt", "card", "amount", "currency", "status", "provider_id", "reason", "created_at"]
    show_change_link = True


class EventLines(Lines):
    model = OrderEvent
    fields = ["created_at", "kind", "detail", "task_id"]
    ordering = ["created_at", "pk"]


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    list_display = ["reference", "customer", "status", "total", "currency", "created_at", "completed_at"]
    list_filter = ["status", "created_at"]
    list_select_related = ["customer"]
    search_fields = ["reference", "customer__email"]
    ordering = ["-created_at", "-pk"]
    date_hierarchy = "created_at"
    inlines = [ItemLines, PaymentLines, EventLines]
    actions = ["nudge"]

    @admin.action(description="Queue again")
    def nudge(self, request: HttpRequest, orders: QuerySet[Order]) -> None:
        ids = list(orders.values_list("pk", flat=True))
        OrderEvent.objects.record(ids, Kind.NUDGED, detail=f"by {request.user}")
        for pk in ids:
            tasks.process_order.delay_on_commit(order_id=pk)
        self.message_user(request, f"{len(ids)} queued again.")


@admin.register(Payment)
class PaymentAdmin(ReadOnlyAdmin):
    list_display = ["order", "attempt", "card", "amount", "currency", "status", "provider_id", "created_at"]
    list_filter = ["status", "card"]
    list_select_related = ["order"]
    search_fields = ["order__reference", "provider_id", "key"]
    ordering = ["-created_at"]


@admin.register(OrderEvent)
class OrderEventAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "order", "kind", "detail", "task_id"]
    list_filter = ["kind", "created_at"]
    list_select_related = ["order"]
    search_fields = ["order__reference", "task_id"]
    ordering = ["-created_at", "-pk"]
