from django.contrib.postgres.indexes import BrinIndex
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    # Orders go on while the indexes are built.
    atomic = False

    dependencies = [
        ("orders", "0024_amounts_are_checked"),
    ]

    operations = [
        AddIndexConcurrently(
            "order", BrinIndex(fields=["created_at"], name="order_placed", pages_per_range=32, autosummarize=True)
        ),
        AddIndexConcurrently(
            "order", models.Index(fields=["status"], name="order_refunded", condition=Q(status="refunded"))
        ),
        AddIndexConcurrently(
            "payment", models.Index(fields=["status"], name="payment_unusual", condition=~Q(status="succeeded"))
        ),
        AddIndexConcurrently(
            "orderevent",
            models.Index(
                fields=["kind", "created_at"],
                name="orderevent_unusual",
                condition=~Q(kind__in=["placed", "processing", "completed", "confirmed"]),
            ),
        ),
        AddIndexConcurrently(
            "orderevent",
            BrinIndex(fields=["created_at"], name="orderevent_recorded", pages_per_range=32, autosummarize=True),
        ),
        RemoveIndexConcurrently("orderevent", "orderevent_noise"),
        RemoveIndexConcurrently("orderevent", "orderevent_refund"),
    ]
