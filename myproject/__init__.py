# Django imports this package first, so `shared_task` always finds this app and not Celery's default one.
from myproject.celery import app as celery_app

__all__ = ("celery_app",)
