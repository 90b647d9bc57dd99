from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0018_highest_stock"),
    ]

    operations = [
        ValidateConstraint(model_name="product", name="product_stock_countable"),
    ]
