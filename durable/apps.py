from django.apps import AppConfig


class DurableConfig(AppConfig):
    name = "durable"

    def ready(self) -> None:
        from durable.checks import registration  # noqa: F401
