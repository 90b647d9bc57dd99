from django.db import migrations


class Migration(migrations.Migration):
    """Needs the table for itself alone."""

    dependencies = [("moving", "0001_table")]
    operations = [migrations.RunSQL("ALTER TABLE moving ADD size int", "ALTER TABLE moving DROP size")]
