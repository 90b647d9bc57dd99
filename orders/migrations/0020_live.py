from django.db import migrations

from myproject.live.triggers import Tell


class Migration(migrations.Migration):
    """Tell open pages of what happens: each change of an order writes an event."""

    dependencies = [("orders", "0019_highest_stock_is_checked")]

    operations = [
        Tell(
            "orders_orderevent",
            "SELECT DISTINCT concat_ws(':', 'orders', o.customer_id, o.id)"
            " FROM changed JOIN orders_order o ON o.id = changed.order_id",
            on=["INSERT"],
        ),
        Tell("orders_productimport", "SELECT concat_ws(':', 'imports', id) FROM changed"),
        Tell("orders_inventorysync", "SELECT concat_ws(':', 'syncs', id) FROM changed"),
    ]
