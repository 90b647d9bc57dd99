from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "myproject"

    def ready(self) -> None:
        # Importing the module registers its checks.
        from . import checks  # noqa: F401
