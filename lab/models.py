from django.db import models


class Permissions(models.Model):  # noqa: DJ008
    """Has no table: the lab writes nothing to the shop's database."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = [("run_experiment", "Can run experiments of the lab")]
