from django.db import migrations, models


class Migration(migrations.Migration):
    """Nobody writes to the table while the index is built."""

    dependencies = [("unsafe", "0003_renamed")]
    operations = [migrations.AddIndex("lamp", models.Index(fields=["size"], name="lamp_size"))]
