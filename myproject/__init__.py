import gc

# A start makes half a million objects and throws few away: to look through them each 700 took an eighth of its time.
gc.set_threshold(50_000, 20, 20)

# Django imports this package first, so `shared_task` always finds this app and not Celery's default one.
from myproject.celery import app as celery_app  # noqa: E402

__all__ = ("celery_app",)
