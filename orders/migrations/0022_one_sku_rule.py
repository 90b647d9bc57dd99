from django.db import migrations, models

import myproject.texts
from myproject.texts import in_capitals


def part(apps, schema_editor):
    """Number those that are the same by the new rule: a database of the locale C told ä and Ä apart."""
    Product = apps.get_model("orders", "Product")
    taken = set()
    for pk, sku in Product.objects.order_by("pk").values_list("pk", "sku").iterator():
        found, number = sku, 1
        while in_capitals(found) in taken:
            number += 1
            found = f"{sku[:16]}-{number}"
        taken.add(in_capitals(found))
        if found != sku:
            Product.objects.filter(pk=pk).update(sku=found)


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0021_large_numbers"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="product", name="product_sku_unique_in_any_case"),
        migrations.RunPython(part, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="product",
            constraint=models.UniqueConstraint(
                myproject.texts.InCapitals("sku"),
                name="product_sku_unique_in_any_case",
                violation_error_message="There is a product with this SKU, in upper or lower case.",
            ),
        ),
    ]
