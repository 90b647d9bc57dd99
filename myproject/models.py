"""Where Django looks for the models of this app."""

from myproject.alerting.models import Alert, Canary, DeadLetter
from myproject.traces.models import Run

__all__ = ["Alert", "Canary", "DeadLetter", "Run"]
