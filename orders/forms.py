import uuid
from typing import Any

import django_filters
from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Q, QuerySet
from django.template.defaultfilters import filesizeformat

from .models import Card, Product


class ProductFilter(django_filters.FilterSet):
    q = django_filters.CharFilter(
        label="Search",
        method="search",
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Search the shop"}),
    )
    category = django_filters.ChoiceFilter(label="Category", empty_label="All categories", choices=lambda: categories())

    class Meta:
        model = Product
        fields = ["q", "category"]

    def search(self, products: QuerySet[Product], name: str, text: str) -> QuerySet[Product]:
        # A generous limit: each further word makes the query slower.
        for word in text.split()[:10]:
            products = products.filter(Q(name__icontains=word) | Q(description__icontains=word) | Q(sku__iexact=word))
        return products


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
            raise forms.ValidationError(f"{self.product.name} is sold out.")
        if quantity + self.in_basket > self.product.stock:
            there = f", and {self.in_basket} are in your basket" if self.in_basket else ""
            raise forms.ValidationError(f"Only {self.product.stock} of {self.product.name} left{there}.")
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
