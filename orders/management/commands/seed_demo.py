import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.management.base import BaseCommand

from accounts.models import User
from myproject.groups import declared, make_groups
from orders.models import Product
from orders.money import places

CATALOGUE = Path(__file__).parents[2] / "catalogue.csv"
PASSWORD = "lantern-loom"  # noqa: S105 # nosec B105 # it is printed for everybody to read


class Command(BaseCommand):
    help = "Fill an empty shop with its catalogue and people to log in as, one of each group; what is there stays."

    def handle(self, *args: Any, **options: Any) -> None:
        with CATALOGUE.open(newline="") as rows:
            products = [product_of(row) for row in csv.DictReader(rows)]
        slugs = Product.objects.slugs_for({product.sku: product.name for product in products})
        for product in products:
            product.slug = slugs[product.sku]
        Product.objects.bulk_create(products, ignore_conflicts=True)
        make_groups()
        if not User.objects.exists():
            User.objects.create_user("customer@example.com", PASSWORD, name="Casey Customer")
            User.objects.create_superuser("staff@example.com", PASSWORD, name="Sam Staff")
            for group in Group.objects.filter(name__in=declared()):
                name = f"Sam {group.name.title()}"
                User.objects.create_user(f"{group}@example.com", PASSWORD, name=name, is_staff=True).groups.add(group)


def product_of(row: dict[str, Any]) -> Product:
    price = round(Decimal(row["price"]), places(settings.CURRENCY))
    return Product(**row | {"price": price})
