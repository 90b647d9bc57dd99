from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("myproject", "0010_live")]

    operations = [
        migrations.AlterField(
            model_name="deadletter",
            name="kind",
            field=models.CharField(
                choices=[
                    ("unreadable", "unreadable"),
                    ("malformed", "malformed"),
                    ("not signed by us", "not signed by us"),
                    ("unknown task", "unknown task"),
                    ("control", "control"),
                    ("given up", "given up"),
                ],
                max_length=20,
            ),
        ),
    ]
