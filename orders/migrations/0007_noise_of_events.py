from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Orders go on while the index is built.
    atomic = False

    dependencies = [
        ('orders', '0006_digest'),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="orderevent",
            index=models.Index(
                condition=models.Q(("kind__in", ["retry", "nudged", "interrupted"])),
                fields=["created_at"],
                name="orderevent_noise",
            ),
        ),
    ]
