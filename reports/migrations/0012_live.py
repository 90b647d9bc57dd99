from django.db import migrations

from myproject.live.triggers import Tell


class Migration(migrations.Migration):
    """Tell open pages of what becomes of reports and packs: their own, those of their pack and of their schedule."""

    dependencies = [("reports", "0011_sales_count_currency")]

    operations = [
        Tell(
            "reports_report",
            "SELECT concat_ws(':', 'reports', requested_by_id, id) FROM changed"
            " UNION SELECT concat_ws(':', 'reports', r.user_id, r.report_id)"
            " FROM changed JOIN reports_report_readers r ON r.report_id = changed.id"
            " UNION SELECT concat_ws(':', 'schedules', schedule_id) FROM changed WHERE schedule_id IS NOT NULL"
            " UNION SELECT concat_ws(':', 'packs', p.requested_by_id, p.id)"
            " FROM changed JOIN reports_pack p ON p.id = changed.pack_id",
        ),
        Tell("reports_pack", "SELECT concat_ws(':', 'packs', requested_by_id, id) FROM changed"),
    ]
