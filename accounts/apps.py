from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "People"

    def ready(self) -> None:
        # Connects the receiver of allauth's signal, which needs the models.
        from . import adapter  # noqa: F401
