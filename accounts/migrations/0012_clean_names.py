from django.db import migrations

from myproject.texts import clean_old


def clean(apps, schema_editor):
    """Bring the names of people under the rule that holds from now on; most have never broken it."""
    for model in ("User", "ApiToken", "Erasure"):
        rows = apps.get_model("accounts", model).objects.filter(name__regex=r"[^ -~]|  |^ | $").order_by("pk")
        for pk, name in rows.values_list("pk", "name").iterator():
            if (cleaned := clean_old(name)) != name:
                rows.model.objects.filter(pk=pk).update(name=cleaned)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0011_streams_end"),
    ]

    operations = [
        migrations.RunPython(clean, migrations.RunPython.noop),
    ]
