from decimal import Decimal

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

COLUMNS = {
    ("product", "price"): "product_price_is_number",
    ("order", "total"): "order_total_is_number",
    ("orderitem", "price"): "item_price_is_number",
    ("payment", "amount"): "payment_amount_is_number",
}


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0022_one_sku_rule"),
    ]

    operations = [
        AddConstraintNotValid(
            model_name=model,
            constraint=models.CheckConstraint(
                condition=models.Q(**{f"{field}__lte": Decimal("999999999.99")}), name=name
            ),
        )
        for (model, field), name in COLUMNS.items()
    ]
