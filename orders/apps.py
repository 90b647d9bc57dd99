from django.apps import AppConfig


class OrdersConfig(AppConfig):
    name = "orders"

    def ready(self) -> None:
        # Importing the module registers its questions.
        from . import metrics  # noqa: F401
