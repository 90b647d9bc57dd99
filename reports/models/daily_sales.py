"""Daily sales, which the dashboard reads instead of a million orders."""

from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import Q

from orders.models import Product


class Sales(models.Model):
    """Sales, and how much of them was refunded since, in `settings.CURRENCY`."""

    orders = models.PositiveIntegerField()
    # The largest stock is a thousand million: the sum of two orders outgrows 32 bits.
    units = models.PositiveBigIntegerField()
    revenue = models.DecimalField(max_digits=20, decimal_places=2, help_text="Before refunds.")
    refunded_orders = models.PositiveIntegerField()
    refunded_units = models.PositiveBigIntegerField()
    refunds = models.DecimalField(max_digits=20, decimal_places=2)

    class Meta:
        abstract = True

    @property
    def currency(self) -> str:
        return settings.CURRENCY

    @property
    def net(self) -> Decimal:
        return self.revenue - self.refunds


class DailySales(Sales):
    """All sales of one day in the shop's time zone; a refund counts on the day of its sale."""

    day = models.DateField(primary_key=True)

    class Meta:
        verbose_name_plural = "daily sales"

    def __str__(self) -> str:
        return str(self.day)


class DailyProductSales(Sales):
    """One product's sales of one day. An order counts for each of its products, so the counts do not add up."""

    day = models.DateField()
    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="+")

    class Meta:
        verbose_name_plural = "daily sales of products"
        constraints = [models.UniqueConstraint(fields=["day", "product"], name="sales_once_per_day_and_product")]

    def __str__(self) -> str:
        return f"{self.day}, product {self.product_id}"


class SalesCount(models.Model):
    """How fresh the daily sales are: one row, locked during a count."""

    as_of = models.DateTimeField(null=True, help_text="What happened before is counted; empty: not all was, so far.")

    currency = models.CharField(max_length=3, db_default="", help_text="After another was set, all are counted again.")

    def __str__(self) -> str:
        return f"as of {self.as_of}"

    @classmethod
    def freshness(cls) -> datetime | None:
        return cls.objects.filter(currency=settings.CURRENCY).values_list("as_of", flat=True).first()

    @classmethod
    def lock(cls) -> None:
        """Keep other counts out until this transaction ends."""
        cls.objects.select_for_update().get_or_create(pk=1)

    @classmethod
    def mark_counted(cls, as_of: datetime) -> bool:
        """Record how fresh the daily sales are; False if a newer run has done so already."""
        cls.objects.get_or_create(pk=1)
        older = Q(as_of=None) | Q(as_of__lt=as_of) | ~Q(currency=settings.CURRENCY)
        return bool(cls.objects.filter(older).update(as_of=as_of, currency=settings.CURRENCY))
