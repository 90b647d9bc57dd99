"""What the process `live` counts: it is a single process, so it counts in its memory."""

from prometheus_client import CollectorRegistry, Counter, Gauge

COUNTED = CollectorRegistry()
STREAMS = Gauge("shop_live_streams", "Open pages that listen.", registry=COUNTED)
HEARS = Gauge("shop_live_hears", "1 while the database is heard, else pages poll.", registry=COUNTED)
NEWS = Counter("shop_live_news", "Changes that the database told of.", registry=COUNTED)
PUSHES = Counter("shop_live_pushes", "Pushes to pages.", registry=COUNTED)
REFUSED = Counter("shop_live_refused", "Pages that were refused, by reason.", ["reason"], registry=COUNTED)
