from django.apps import AppConfig


class OrdersConfig(AppConfig):
    name = "orders"

    def ready(self) -> None:
        # Importing the module registers its metrics.
        from . import metrics  # noqa: F401
