from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

import accounts.models.people


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_leases"),
    ]

    operations = [
        migrations.AlterField(
            model_name="user",
            name="email",
            field=models.EmailField(
                max_length=254,
                unique=True,
                validators=[accounts.models.people.check_address],
                verbose_name="e-mail address",
            ),
        ),
        AddConstraintNotValid(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(("deleted_at__isnull", False))
                | models.Q(("email__iendswith", "@deleted.invalid"), _negated=True),
                name="user_nowhere_is_deleted",
            ),
        ),
    ]
