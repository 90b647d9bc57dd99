"""Permissions for the shop of the predefined staff groups, which `sync_groups` creates."""

LOOK_AT_ORDERS = [f"orders.view_{row}" for row in ("order", "orderitem", "payment", "orderevent")]
GROUPS = {
    "support": [
        *LOOK_AT_ORDERS,
        "orders.change_order",
        "orders.refund_order",
        "orders.view_product",
        "orders.view_digest",
    ],
    "warehouse": [
        *LOOK_AT_ORDERS,
        *(f"orders.{act}_product" for act in ("view", "add", "change")),
        *(f"orders.{act}_productimport" for act in ("view", "add")),
        *(f"orders.{act}_inventorysync" for act in ("view", "add")),
        "orders.view_inventorydifference",
    ],
    "accounting": [*LOOK_AT_ORDERS, "orders.refund_order", "orders.view_product"],
    "operations": [*LOOK_AT_ORDERS, "orders.change_order"],
}
