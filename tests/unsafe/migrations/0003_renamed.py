from django.db import migrations


class Migration(migrations.Migration):
    """The release before still asks for the old name."""

    dependencies = [("unsafe", "0002_required")]
    operations = [migrations.RenameField("lamp", "name", "title")]
