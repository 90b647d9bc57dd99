from django.db import migrations

from myproject.live.endings import End

RIGHTS = ("is_active", "is_staff", "is_superuser", "password")


def columns(table: str) -> str:
    return ", ".join(f"{table}.{name}" for name in RIGHTS)


class Migration(migrations.Migration):
    """End the streams of who loses a right, is switched off, or has another password."""

    dependencies = [("accounts", "0010_api_tokens"), ("auth", "0012_alter_user_first_name_max_length")]

    operations = [
        End(
            "accounts_user",
            "SELECT id FROM changed JOIN former USING (id)"
            f" WHERE ({columns('changed')}) IS DISTINCT FROM ({columns('former')})",
            on="UPDATE",
        ),
        End("accounts_user_groups", "SELECT DISTINCT user_id FROM former", on="DELETE"),
        End("accounts_user_user_permissions", "SELECT DISTINCT user_id FROM former", on="DELETE"),
        End(
            "auth_group_permissions",
            "SELECT DISTINCT user_id FROM accounts_user_groups JOIN former USING (group_id)",
            on="DELETE",
        ),
    ]
