from django.apps import AppConfig


class ReportsConfig(AppConfig):
    name = "reports"

    def ready(self) -> None:
        # Importing the module registers its metrics.
        from . import metrics  # noqa: F401
