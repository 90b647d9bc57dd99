from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Tasks go on while the index is built.
    atomic = False

    dependencies = [
        ("myproject", "0011_given_up"),
    ]

    operations = [
        AddIndexConcurrently("run", models.Index(fields=["task", "ended_at"], name="run_of_task")),
    ]
