import logging
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")

application = get_wsgi_application()

# The web starts all the same, since a page without style still sells; after Django, whose apps it asks.
from myproject.web import static_files  # noqa: E402

for forgotten in static_files.check_collected():
    logging.getLogger(__name__).error("%s %s", forgotten.msg, forgotten.hint)
