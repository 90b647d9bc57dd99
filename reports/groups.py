"""Permissions for reports of the predefined staff groups, which `sync_groups` creates."""

GROUPS = {
    "accounting": [
        *(f"reports.{act}_{row}" for act in ("view", "add") for row in ("report", "pack")),
        *(f"reports.{act}_reportschedule" for act in ("view", "add", "change", "delete")),
        "reports.view_dailysales",
    ],
}
