"""Settings of reports; `myproject/settings.py` takes them in."""

from datetime import timedelta

from myproject.variables import env

# Afterwards the file is removed, and the report's page offers to make it again.
REPORT_KEPT = timedelta(days=env.int("REPORT_KEPT_DAYS", default=30))
# How long a report's worker may show no sign of life, of which there is one each second, until another takes over.
REPORT_LEASE = timedelta(seconds=env.int("REPORT_LEASE_SECONDS", default=60))
# How long an attempt to write one may take: the hard time limit of `generate_report`.
REPORT_LIMIT = timedelta(seconds=env.int("REPORT_LIMIT_SECONDS", default=600))
# How many reports of one person may be written at the same time.
REPORTS_AT_ONCE = env.int("REPORTS_AT_ONCE", default=2)
# How many reports of one person may wait or be written at a time; a pack has seven.
REPORTS_OPEN_MOST = env.int("REPORTS_OPEN_MOST", default=30)
# How long the address of a file may be used after it was given out to somebody who may read it.
REPORT_LINK_LASTS = timedelta(seconds=env.int("REPORT_LINK_SECONDS", default=3600))
