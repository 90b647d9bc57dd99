import logging
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")

django.setup(set_prefix=False)

# After Django, whose apps they ask.
from myproject.web import static_files  # noqa: E402
from myproject.web.handler import Handler  # noqa: E402

application = Handler()

# The web starts all the same, since a page without style still sells.
for forgotten in static_files.check_collected():
    logging.getLogger(__name__).error("%s %s", forgotten.msg, forgotten.hint)
