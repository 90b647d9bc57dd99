from django.db import migrations


class Migration(migrations.Migration):
    """Waits for everybody who reads the table, and makes nobody wait."""

    atomic = False
    dependencies = [("moving", "0002_column")]
    operations = [migrations.RunSQL("CREATE INDEX CONCURRENTLY moving_name ON moving (name)", "DROP INDEX moving_name")]
