import uuid
from typing import Any

import django_filters
from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Q, QuerySet
from django.template.defaultfilters import filesizeformat

from accounts.models import User
from myproject import texts

from .models import Card, Order, Product, Status, sku_key

# What stands in the address, by what it is called; without it, by name.
SORTS = [("price", "Price, lowest first"), ("-price", "Price, highest first"), ("-created_at", "Newest first")]
# So many rows that others point to are looked up by their keys.
FEW = 1000


class ProductFilter(django_filters.FilterSet):
    """Visitors' search, whose fields the templates write themselves: widgets take a third of the page's time."""

    q = django_filters.CharFilter(method="search")
    category = django_filters.ChoiceFilter(choices=lambda: categories())
    in_stock = django_filters.BooleanFilter(method="only_in_stock", widget=forms.CheckboxInput)
    sort = django_filters.ChoiceFilter(method="order", choices=SORTS)

    class Meta:
        model = Product
        fields = ["q", "category", "in_stock", "sort"]

    def only_in_stock(self, products: QuerySet[Product], name: str, wanted: bool) -> QuerySet[Product]:
        return products.filter(stock__gt=0) if wanted else products

    def order(self, products: QuerySet[Product], name: str, sort: str) -> QuerySet[Product]:
        return products.order_by(sort, "pk")

    def search(self, products: QuerySet[Product], name: str, text: str) -> QuerySet[Product]:
        try:
            words = texts.clean_words(text).split()
        except texts.Unprintable:
            return products.none()
        # A generous limit: each further word makes the query slower.
        for word in words[:10]:
            said = Q(name__icontains=word) | Q(description__icontains=word)
            products = products.alias(key=texts.InCapitals("sku")).filter(said | Q(key=sku_key(word)))
        return products


class OrderFilter(django_filters.FilterSet):
    """Staff's search of all orders."""

    q = django_filters.CharFilter(
        label="Search",
        method="search",
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Reference, name or address"}),
    )
    status = django_filters.ChoiceFilter(choices=Status.choices, empty_label="Every state")

    class Meta:
        model = Order
        fields = ["q", "status"]

    def search(self, orders: QuerySet[Order], name: str, text: str) -> QuerySet[Order]:
        try:
            told = texts.clean_words(text)
        except texts.Unprintable:
            return orders.none()
        return orders.filter(reference_starts(told) | Q(customer__in=people_like(told)))


def reference_starts(text: str) -> Q:
    return Q(reference__startswith=texts.in_capitals(text))


def orders_like(text: str) -> QuerySet[Order] | list[int]:
    """Return the orders whose reference starts so, as `keys_of` does."""
    return keys_of(Order.objects.filter(reference_starts(text)))


def people_like(text: str) -> QuerySet[User] | list[int]:
    """Return the people with such a name or address, as `keys_of` does."""
    return keys_of(User.objects.filter(Q(name__icontains=text) | Q(email__icontains=text)))


def keys_of(found: QuerySet[Any]) -> QuerySet[Any] | list[int]:
    """Return the rows; their keys where they are few, by which an index finds what points to them. Makes a query."""
    keys = list(found.values_list("pk", flat=True)[: FEW + 1])
    return keys if len(keys) <= FEW else found


def categories() -> list[tuple[str, str]]:
    names = Product.objects.on_sale().order_by("category").values_list("category", flat=True).distinct()
    return [(name, name) for name in names]


class QuantityForm(forms.Form):
    """How many of a product; `in_basket` counts what is there already. `least` is 0 where 0 means to remove."""

    quantity = forms.IntegerField(initial=1)

    def __init__(self, *args: Any, product: Product, in_basket: int = 0, least: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.product, self.in_basket, self.least = product, in_basket, least
        self.fields["quantity"].widget.attrs |= {"min": least, "max": max(product.stock, least)}

    def clean_quantity(self) -> int:
        quantity: int = self.cleaned_data["quantity"]
        if quantity < self.least:
            raise forms.ValidationError(f"Please order at least {self.least}.")
        if quantity == 0:
            return 0
        if not self.product.stock:
            raise forms.ValidationError(f"{texts.isolated(self.product.name)} is sold out.")
        if quantity + self.in_basket > self.product.stock:
            there = f", and {self.in_basket} are in your basket" if self.in_basket else ""
            name = texts.isolated(self.product.name)
            raise forms.ValidationError(f"Only {self.product.stock} of {name} left{there}.")
        return quantity


class CardForm(forms.Form):
    card = forms.ChoiceField(label="Pay with", choices=Card.choices, widget=forms.RadioSelect, initial=Card.VISA)


class CheckoutForm(CardForm):
    # A rendered form makes one order, however often it is submitted.
    token = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)
    # What the page shows: basket and prices may change meanwhile, even to the same total, and no customer may pay for
    # what they have not seen. Forms of the previous release do not have it.
    contents = forms.CharField(required=False, widget=forms.HiddenInput)


class ImportForm(forms.Form):
    """A CSV file of products; a rendered form makes one import, however often it is submitted."""

    file = forms.FileField(
        label="CSV file", widget=forms.ClearableFileInput(attrs={"accept": ".csv,text/csv,text/plain"})
    )
    token = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)

    def clean_file(self) -> UploadedFile:
        file: UploadedFile = self.cleaned_data["file"]
        size, most = file.size or 0, settings.IMPORT_MAX_BYTES
        if size > most:
            raise forms.ValidationError(
                f"The file has {filesizeformat(size)}; at most {filesizeformat(most)} are taken."
            )
        return file
