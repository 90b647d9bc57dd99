"""Permissions for people of the predefined staff groups, which `sync_groups` creates."""

GROUPS = {
    "support": [
        "accounts.view_user",
        "accounts.change_user",
        "accounts.view_accountmail",
        "accounts.change_accountmail",
        "accounts.view_notification",
        "accounts.change_notification",
        "accounts.view_crmcontact",
        "accounts.change_crmcontact",
        "account.view_emailaddress",
    ],
}
