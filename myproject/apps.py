import logging

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin import apps as admin


class AdminConfig(admin.AdminConfig):
    default = False
    default_site = "myproject.web.admin_site.AdminSite"


class ProjectConfig(AppConfig):
    name = "myproject"
    verbose_name = "Operations"
    default = True

    def ready(self) -> None:
        # Importing them connects signals, and registers checks and worker steps.
        from myproject.alerting import alerts, dead_letters  # noqa: F401
        from myproject.live import endings  # noqa: F401
        from myproject.monitoring import control, gauges, heartbeats, metrics  # noqa: F401
        from myproject.traces import recorder  # noqa: F401
        from myproject.transport import rabbitmq, traps  # noqa: F401
        from myproject.web import static_files  # noqa: F401

        # Where machines read the log, a warning of Python's is a line like any other.
        logging.captureWarnings(settings.LOG_FORMAT == "json")
        if settings.METRICS_TOKEN:
            metrics.count_tasks()
        if settings.OTEL_EXPORTER_OTLP_ENDPOINT:
            # The same: 200 ms.
            from myproject.traces import otel

            otel.start(settings.OTEL_SERVICE_NAME)
        if settings.SENTRY_DSN:
            # Imported here, since it costs 25 ms per start and is rarely configured.
            from myproject.logs import sentry

            sentry.start(settings.SENTRY_DSN)
