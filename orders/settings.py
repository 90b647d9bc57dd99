"""Settings of products and orders; `myproject/settings.py` takes them in."""

from datetime import timedelta

from django.urls import reverse_lazy

from myproject.variables import PORT, SANDBOX, SANDBOX_PORT, env

from .money import check_currency

# An order keeps the currency that it was placed in.
CURRENCY = check_currency(env.str("CURRENCY", default="EUR"))
ACCOUNT_LOGOUT_REDIRECT_URL = reverse_lazy("orders:catalogue")

STRIPE_API_KEY = env.str("STRIPE_API_KEY", default="sk_test_sandbox" if SANDBOX else "")
# Empty means Stripe itself.
STRIPE_API_BASE = env.str("STRIPE_API_BASE", default=f"http://127.0.0.1:{SANDBOX_PORT}" if SANDBOX else "")
# Signs the provider's webhooks; while it is empty all of them are refused.
STRIPE_WEBHOOK_SECRET = env.str("STRIPE_WEBHOOK_SECRET", default="whsec_sandbox" if SANDBOX else "")
STRIPE_TIMEOUT_SECONDS = env.float("STRIPE_TIMEOUT_SECONDS", default=10)
# The warehouse; an empty address switches `sync_inventory` off.
WAREHOUSE_URL = env.str("WAREHOUSE_URL", default=f"http://127.0.0.1:{SANDBOX_PORT}/warehouse" if SANDBOX else "")
WAREHOUSE_TOKEN = env.str("WAREHOUSE_TOKEN", default="wh_test_sandbox" if SANDBOX else "")
# How the sandbox of `make run` finds the shop.
RUN_VARIABLES = {
    "SANDBOX_SHOP_URL": env.str("SITE_URL", default=f"http://localhost:{PORT}"),
    "SANDBOX_WEBHOOK_URL": f"http://127.0.0.1:{PORT}/webhooks/payments/",
    "STRIPE_WEBHOOK_SECRET": STRIPE_WEBHOOK_SECRET,
}

# How long a worker may hold an order. It is also the hard time limit of `process_order`, so that no worker
# can still be busy with an order that the sweep hands to another one.
ORDER_LEASE = timedelta(seconds=env.int("ORDER_LEASE_SECONDS", default=30))
# The provider remembers an idempotency key for a day. An order that is still open then is a person's: to ask once
# more with a forgotten key could charge twice.
ORDER_GIVEN_UP_AFTER = timedelta(days=1)
# How long a worker may take over the warehouse's levels: the hard time limit of `sync_inventory`.
INVENTORY_LEASE = timedelta(minutes=5)
# How long an import may stand still until another worker goes on with it: each chunk starts it anew.
IMPORT_LEASE = timedelta(seconds=env.int("IMPORT_LEASE_SECONDS", default=60))
# Of a file of products. The SKUs of one are held in memory, to find those that stand there twice.
IMPORT_MAX_BYTES = env.int("IMPORT_MAX_BYTES", default=50 * 1024 * 1024)
IMPORT_MAX_ROWS = 200_000
REQUEST_MAX_BYTES = IMPORT_MAX_BYTES + 1024 * 1024
