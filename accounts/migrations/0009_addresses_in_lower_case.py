from django.db import migrations
from django.db.models.functions import Lower


def fold(apps, schema_editor):
    """Let those sign in whom a command or the admin has registered by an address with capitals; no two are alike."""
    apps.get_model("accounts", "User").objects.exclude(email=Lower("email")).update(email=Lower("email"))


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0008_nowhere_is_checked"),
    ]

    operations = [
        migrations.RunPython(fold, migrations.RunPython.noop),
    ]
