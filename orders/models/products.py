"""What is sold."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, Self

from django.conf import settings
from django.db import connection, models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

from durable.errors import ReasonField
from durable.leases import HasLease, Lease, LeasedQuerySet
from myproject.texts import InCapitals, LinesField, Unprintable, WordsField, clean_words, in_capitals

from .. import money

# What can be counted: the most that a warehouse may tell, half of what the column could hold. People at work mean less.
HIGHEST_STOCK = 1_000_000_000
# How long thumbnails may take before the sweep considers their worker dead; also the task's hard limit.
PICTURE_LEASE = timedelta(seconds=60)


class PictureStatus(models.TextChoices):
    NONE = "", "None"
    PENDING = "pending", "Pending"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"


def slug_of(name: str, sku: str) -> str:
    """Return the last part of a product's address; a long name is cut, the SKU tells it apart."""
    # Longer than the SKU where one sign stands for several letters, such as ㎯.
    end = slugify(sku)
    return f"{slugify(name)[: max(0, 79 - len(end))]}-{end}"[:80].strip("-")


def sku_key(sku: str) -> str:
    """Return by what two SKUs are the same: neither case nor what no one sees tells them apart."""
    with suppress(Unprintable):
        sku = clean_words(sku)
    return in_capitals(sku)


class ProductQuerySet(LeasedQuerySet["Product"]):
    def on_sale(self) -> Self:
        return self.filter(is_active=True)

    def added_between(self, start: datetime, end: datetime) -> Self:
        return self.filter(created_at__gte=start, created_at__lt=end)

    def locking(self, ids: Iterable[int]) -> Self:
        """These products, locked in key order, which prevents deadlocks; new orders of them do not wait."""
        return self.filter(pk__in=ids).select_for_update(no_key=True).order_by("pk")

    def give_up_pictures(self) -> int:
        """Fail pictures whose attempts are used up; return how many."""
        error = f"No thumbnails could be made in {Product.lease.max_attempts} attempts."
        ended = {**Product.lease.ended(), "picture_attempts": 0, "picture_error": error}
        return self.exhausted().update(picture_status=PictureStatus.FAILED, **ended)

    def with_skus(self, skus: Collection[str]) -> Self:
        """Products of these SKUs, however people, spreadsheets and counterparts spell them."""
        return self.annotate(key=InCapitals("sku")).filter(Q(sku__in=skus) | Q(key__in=[*map(sku_key, skus)]))

    def spellings(self, skus: Collection[str]) -> dict[str, str]:
        """Return, for each of these SKUs that is ours, how we spell it; makes a query."""
        ours = {sku_key(sku): sku for sku in self.with_skus(skus).values_list("sku", flat=True)}
        return {sku: ours[sku_key(sku)] for sku in skus if sku_key(sku) in ours}

    def slugs_for(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return a free slug for each SKU with its name: `A/1` and `A-1` of one name would otherwise share one."""
        slugs = {sku: slug_of(name, sku) for sku, name in names.items()}
        taken = {"", *self.filter(slug__in=slugs.values()).values_list("slug", flat=True)}
        for sku in slugs:
            if slugs[sku] in taken:
                # At random: what is made of the SKU may be the slug of a product that had it before.
                slugs[sku] = f"{slugs[sku][:67]}-{token_hex(6)}".strip("-")
            taken.add(slugs[sku])
        return slugs

    def adjust_stock(self, by: int) -> int:
        """Add units (or take away) where there is the room (or the stock); return to how many products."""
        return self.filter(stock__range=(-by, HIGHEST_STOCK - by)).update(stock=F("stock") + by)

    def add_stock(self, units: Mapping[int, int]) -> None:
        """Add to each product (by its key) these units, or take them away, in one statement.

        What would pass the highest stock is left out: a refund must not fail for it.
        """
        # `bulk_update` spends more time on its CASE WHEN than all the rest of an order takes.
        sql = "UPDATE orders_product SET stock = LEAST(stock + added, %s) FROM unnest(%s::bigint[], %s::bigint[])"
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} AS a (pk, added) WHERE id = pk", [HIGHEST_STOCK, list(units), list(units.values())])

    def levels_of(self, skus: Collection[str]) -> Any:
        """Return SKU, primary key and the last applied warehouse level of these SKUs."""
        return self.filter(sku__in=skus).values_list("sku", "pk", "warehouse_units")

    def apply_levels(self, levels: Mapping[int, tuple[int, int]]) -> int:
        """Add to each product's stock (by its key) the first number, note the second as the warehouse's level.

        In one statement; returns how many products were changed by it.
        """
        sql = "UPDATE orders_product SET stock = stock + added, warehouse_units = level"
        given = "FROM unnest(%s::bigint[], %s::int[], %s::int[]) AS a (pk, added, level) WHERE id = pk"
        columns = [[added for added, _ in levels.values()], [level for _, level in levels.values()]]
        with connection.cursor() as cursor:
            cursor.execute(
                f"{sql} {given} AND (added, level) IS DISTINCT FROM (0, warehouse_units)", [[*levels], *columns]
            )
            return int(cursor.rowcount)


class Product(HasLease):
    """A thing on sale; the lease is of its picture, of which a worker makes thumbnails."""

    lease = Lease(
        open=Q(picture_status=PictureStatus.PENDING),
        lasts=lambda: PICTURE_LEASE,
        prefix="picture_",
        # A picture that kills its worker must not do so forever.
        max_attempts=3,
    )

    sku = WordsField("SKU", max_length=20, unique=True)
    slug = models.SlugField(max_length=80, unique=True, editable=False)
    name = WordsField(max_length=80)
    category = WordsField(max_length=40, db_index=True)
    description = LinesField(blank=True)
    # In dong, a telephone costs thirty million.
    price = models.DecimalField(max_digits=11, decimal_places=2, validators=[money.check_price])
    stock = models.IntegerField(default=0, help_text="Units that may still be ordered; reserved ones are gone already.")
    warehouse_units = models.IntegerField(
        null=True, blank=True, editable=False, help_text="The warehouse's level that the stock has followed so far."
    )
    # The sum of all imports: it grows while what they add is sold.
    imported = models.BigIntegerField(
        default=0, db_default=0, editable=False, help_text="Units that imports have added to the stock in all."
    )
    is_active = models.BooleanField("on sale", default=True)
    # Also a database default, for inserts that bypass this code.
    created_at = models.DateTimeField(default=timezone.now, db_default=Now(), editable=False)

    # With database defaults, for inserts that bypass this code.
    # The original, read by the worker only; each upload gets a new name.
    picture = models.FileField(max_length=80, blank=True, default="", db_default="", editable=False)
    picture_status = models.CharField(
        max_length=7, choices=PictureStatus.choices, blank=True, default="", db_default="", editable=False
    )
    picture_error = ReasonField(max_length=200, blank=True, default="", db_default="", editable=False)
    picture_due_at = models.DateTimeField(null=True, blank=True, editable=False)
    picture_claimed_by = models.CharField(max_length=80, blank=True, default="", db_default="", editable=False)
    picture_attempts = models.PositiveSmallIntegerField(default=0, db_default=0, editable=False)
    # What the thumbnails on show are named by; empty until the first picture is ready.
    thumbnails = models.CharField(max_length=32, blank=True, default="", db_default="", editable=False)

    objects = ProductQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="product_created_at"),
            models.Index(fields=["picture_due_at"], name="product_picture_due", condition=Q(picture_status="pending")),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(picture_status__in=PictureStatus.values), name="picture_status_known"),
            models.CheckConstraint(
                condition=Q(picture_status="pending", picture_due_at__isnull=False)
                | (~Q(picture_status="pending") & Q(picture_due_at=None)),
                name="picture_due_while_pending",
            ),
            models.CheckConstraint(condition=Q(stock__gte=0), name="product_stock_not_negative"),
            models.CheckConstraint(condition=Q(stock__lte=HIGHEST_STOCK), name="product_stock_countable"),
            models.CheckConstraint(condition=Q(price__gt=0), name="product_price_positive"),
            models.CheckConstraint(condition=money.is_number("price"), name="product_price_is_number"),
            # Every page that lists a product links to it.
            models.CheckConstraint(condition=~Q(slug=""), name="product_has_slug"),
            models.CheckConstraint(condition=~Q(sku="") & ~Q(name="") & ~Q(category=""), name="product_has_words"),
            models.UniqueConstraint(
                InCapitals("sku"),
                name="product_sku_unique_in_any_case",
                violation_error_message="There is a product with this SKU, in upper or lower case.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: object, **kwargs: object) -> None:
        self.slug = self.slug or Product.objects.slugs_for({self.sku: self.name})[self.sku]
        super().save(*args, **kwargs)  # type: ignore[arg-type]

    def get_absolute_url(self) -> str:
        return reverse("orders:product", args=[self.slug])

    @property
    def currency(self) -> str:
        return settings.CURRENCY

    def mark_picture_pending(self, name: str) -> None:
        """Set a new original, even while a worker processes the old one; thumbnails stay until new ones are ready."""
        self._set_picture(self._row(), PictureStatus.PENDING, picture=name, **self.lease.fresh())

    def release_picture(self) -> None:
        """Release the picture at once after an attempt that failed for an external reason."""
        self.put_off(timedelta(0), picture_attempts=F("picture_attempts") - 1)

    def mark_picture_ready(self, thumbnails: str) -> bool:
        """Show these thumbnails; False when a newer picture was uploaded meanwhile, or another worker was faster."""
        return self._set_picture(self.held(), PictureStatus.READY, thumbnails=thumbnails)

    def mark_picture_failed(self, reason: str) -> bool:
        return self._set_picture(self.held(), PictureStatus.FAILED, picture_error=reason)

    def mark_picture_removed(self) -> None:
        self._set_picture(self._row(), PictureStatus.NONE, picture="", thumbnails="")

    def _row(self) -> ProductQuerySet:
        return Product.objects.filter(pk=self.pk)

    def _set_picture(self, rows: ProductQuerySet, status: PictureStatus, **fields: object) -> bool:
        unless = {**self.lease.ended(), "picture_attempts": 0, "picture_error": ""}
        return bool(rows.update(picture_status=status, **unless | fields))
