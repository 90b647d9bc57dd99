from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations, models
from django.db.models.functions import Upper

UNIQUE = models.UniqueConstraint(
    Upper("sku"),
    name="product_sku_unique_in_any_case",
    violation_error_message="There is a product with this SKU, in upper or lower case.",
)


class Migration(migrations.Migration):
    # Orders go on while the rows are read and the index is built.
    atomic = False

    dependencies = [
        ("orders", "0014_clean_words"),
    ]

    operations = [
        ValidateConstraint(model_name="product", name="product_has_slug"),
        ValidateConstraint(model_name="product", name="product_has_words"),
        migrations.RunSQL(
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS product_sku_unique_in_any_case"
            " ON orders_product (upper(sku))",
            "DROP INDEX CONCURRENTLY IF EXISTS product_sku_unique_in_any_case",
            state_operations=[migrations.AddConstraint(model_name="product", constraint=UNIQUE)],
        ),
    ]
