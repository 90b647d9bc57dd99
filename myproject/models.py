"""Where Django looks for the models of this app."""

from myproject.alerting.models import Alert, Canary, DeadLetter

__all__ = ["Alert", "Canary", "DeadLetter"]
