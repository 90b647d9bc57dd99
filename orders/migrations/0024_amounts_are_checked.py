from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0023_amounts_are_numbers"),
    ]

    operations = [
        ValidateConstraint(model_name="product", name="product_price_is_number"),
        ValidateConstraint(model_name="order", name="order_total_is_number"),
        ValidateConstraint(model_name="orderitem", name="item_price_is_number"),
        ValidateConstraint(model_name="payment", name="payment_amount_is_number"),
    ]
