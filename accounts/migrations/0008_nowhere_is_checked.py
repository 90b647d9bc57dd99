from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_nowhere_is_of_the_deleted"),
    ]

    operations = [
        ValidateConstraint(model_name="user", name="user_nowhere_is_deleted"),
    ]
