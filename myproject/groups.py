"""Predefined staff groups: each app declares their permissions in its own `groups.py`."""

from importlib import import_module

from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.db.models import Q
from django.utils.module_loading import module_has_submodule

GROUPS = {
    "operations": [
        "myproject.view_status",
        "myproject.use_flower",
        "myproject.try_tasks",
        "myproject.view_alert",
        "myproject.view_deadletter",
        "myproject.delete_deadletter",
        "myproject.resend_deadletter",
        *(f"django_celery_beat.{act}_periodictask" for act in ("view", "add", "change", "delete")),
        *(f"django_celery_beat.{act}_{row}schedule" for act in ("view", "add") for row in ("crontab", "interval")),
        "django_celery_results.view_taskresult",
        "django_celery_results.view_groupresult",
    ],
}


def declared() -> dict[str, list[str]]:
    """Return the permissions of each group, from all installed apps."""
    found: dict[str, list[str]] = {}
    for config in apps.get_app_configs():
        if module_has_submodule(config.module, "groups"):
            for name, permissions in import_module(f"{config.name}.groups").GROUPS.items():
                found.setdefault(name, []).extend(permissions)
    return found


def make_groups() -> list[str]:
    """Create missing groups and return their names; existing ones are left as edited."""
    made = []
    for name, permissions in declared().items():
        group, is_new = Group.objects.get_or_create(name=name)
        if is_new:
            group.permissions.set(_rows(permissions))
            made.append(name)
    return made


def _rows(names: list[str]) -> list[Permission]:
    """Find the permissions by names such as `orders.view_order`; raises `LookupError` for one that is not there."""
    pairs = {tuple(name.split(".")) for name in names}
    wanted = Q()
    for app, codename in pairs:
        wanted |= Q(content_type__app_label=app, codename=codename)
    rows = list(Permission.objects.filter(wanted).select_related("content_type"))
    if missing := pairs - {(row.content_type.app_label, row.codename) for row in rows}:
        raise LookupError(f"There are no such permissions, run `migrate` first: {sorted(missing)}")
    return rows
