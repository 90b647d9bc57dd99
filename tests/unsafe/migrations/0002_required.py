from django.db import migrations, models


class Migration(migrations.Migration):
    """A row that the release before writes lacks the column."""

    dependencies = [("unsafe", "0001_table")]
    operations = [migrations.AddField("lamp", "size", models.IntegerField(default=1))]
