"""The table of the cache `results`, as `createcachetable` would make it."""

from django.db import migrations

MAKE = """
CREATE TABLE "cache_of_results" ("cache_key" varchar(255) PRIMARY KEY, "value" text NOT NULL, "expires" timestamptz NOT NULL);
CREATE INDEX "cache_of_results_expires" ON "cache_of_results" ("expires");
"""


class Migration(migrations.Migration):
    dependencies = [("myproject", "0003_canary")]
    operations = [migrations.RunSQL(MAKE, reverse_sql='DROP TABLE "cache_of_results"')]
