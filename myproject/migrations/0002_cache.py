"""The table of `CACHES`, as `createcachetable` would make it: one command less to forget."""

from django.db import migrations

MAKE = """
CREATE TABLE "cache" ("cache_key" varchar(255) PRIMARY KEY, "value" text NOT NULL, "expires" timestamptz NOT NULL);
CREATE INDEX "cache_expires" ON "cache" ("expires");
"""


class Migration(migrations.Migration):
    dependencies = [("myproject", "0001_alert")]
    operations = [migrations.RunSQL(MAKE, reverse_sql='DROP TABLE "cache"')]
