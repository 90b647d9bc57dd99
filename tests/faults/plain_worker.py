"""The shop's Celery app as it is, but for the lease of a mail."""

from datetime import timedelta

import django

from myproject.celery import app as app

django.setup()

from durable import mail  # noqa: E402

# Tests must not wait two minutes for each mail whose worker died.
mail.LEASE = timedelta(seconds=8)
