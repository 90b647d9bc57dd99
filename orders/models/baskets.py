"""Baskets, stored as rows that two tabs and a checkout can change concurrently."""

from datetime import datetime
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from .products import HIGHEST_STOCK, Product


class BasketQuerySet(models.QuerySet["Basket"]):
    def abandoned_before(self, moment: datetime) -> Self:
        """Baskets of visitors who have not come back; a person's own is kept."""
        return self.filter(person=None, used_at__lt=moment)

    def hold(self, **owner: Any) -> "Basket":
        """Return the owner's basket, locked until the transaction ends."""
        while True:
            basket, _ = self.get_or_create(**owner)
            # None if it was merged at a sign-in, or deleted, meanwhile.
            if self.filter(pk=basket.pk).update(used_at=timezone.now()):
                return basket


class Basket(models.Model):
    """The basket of a person, or of a visitor who has not signed in, whom a cookie names."""

    person = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, null=True, related_name="basket")
    visitor = models.UUIDField(null=True, unique=True)
    used_at = models.DateTimeField(default=timezone.now)

    objects = BasketQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(person=None, visitor__isnull=False) | Q(person__isnull=False, visitor=None),
                name="basket_of_one",
            )
        ]
        indexes = [models.Index(fields=["used_at"], name="basket_of_visitor", condition=Q(person=None))]

    def __str__(self) -> str:
        return f"Basket {self.pk}"

    def put(self, product: Product, quantity: int) -> None:
        """Set the quantity, under the basket's lock; zero removes the product."""
        if quantity:
            # Each sign-in adds up two baskets.
            self.lines.update_or_create(product=product, defaults={"quantity": min(quantity, HIGHEST_STOCK)})
        else:
            self.lines.filter(product=product).delete()


class BasketLine(models.Model):
    basket = models.ForeignKey(Basket, models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, models.CASCADE, related_name="+")
    quantity = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["basket", "product"], name="basket_line_once_per_product"),
            models.CheckConstraint(condition=Q(quantity__gt=0), name="basket_line_quantity_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.product}"
