import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.text import slugify

from accounts.models import User
from orders.models import Product
from orders.money import places

CATALOGUE = Path(__file__).parents[2] / "catalogue.csv"
PASSWORD = "lantern-loom"  # noqa: S105 # nosec B105 # it is printed for everybody to read


class Command(BaseCommand):
    help = "Fill an empty shop with its catalogue and two people to log in as; what is there already stays as it is."

    def handle(self, *args: Any, **options: Any) -> None:
        with CATALOGUE.open(newline="") as rows:
            products = [product_of(row) for row in csv.DictReader(rows)]
        Product.objects.bulk_create(products, ignore_conflicts=True)
        if not User.objects.exists():
            User.objects.create_user("customer@example.com", PASSWORD, name="Casey Customer")
            User.objects.create_superuser("staff@example.com", PASSWORD, name="Sam Staff")


def product_of(row: dict[str, Any]) -> Product:
    price = round(Decimal(row["price"]), places(settings.CURRENCY))
    return Product(**row | {"price": price}, slug=slugify(f"{row['name']} {row['sku']}"))
