"""Where Django looks for the admin of this app."""

# They register themselves.
from myproject.alerting import admin as alerting_admin  # noqa: F401
from myproject.monitoring import admin as monitoring_admin  # noqa: F401
