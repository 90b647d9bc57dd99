"""What the ready-made groups of staff may do with reports; `sync_groups` makes them."""

GROUPS = {
    "accounting": [
        *(f"reports.{act}_{row}" for act in ("view", "add") for row in ("report", "pack")),
        *(f"reports.{act}_reportschedule" for act in ("view", "add", "change", "delete")),
        "reports.view_dailysales",
    ],
}
