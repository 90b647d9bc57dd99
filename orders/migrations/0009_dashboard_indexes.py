from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Orders go on while the indexes are built.
    atomic = False

    dependencies = [
        ('orders', '0008_picture_defaults'),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="orderevent",
            index=models.Index(
                condition=models.Q(("kind", "refunded")), fields=["created_at"], name="orderevent_refund"
            ),
        ),
        AddIndexConcurrently(
            model_name="order",
            index=models.Index(
                condition=models.Q(("status__in", ["rejected", "payment_failed", "cancelled"])),
                fields=["created_at", "status"],
                name="order_unsold",
            ),
        ),
    ]
