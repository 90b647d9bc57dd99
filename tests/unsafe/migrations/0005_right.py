from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """The same as they should be."""

    atomic = False
    dependencies = [("unsafe", "0004_index")]
    operations = [
        migrations.AddField("lamp", "weight", models.IntegerField(db_default=1)),
        AddIndexConcurrently("lamp", models.Index(fields=["weight"], name="lamp_weight")),
    ]
