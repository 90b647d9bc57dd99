"""Results as the tutorials store and show them."""

from celery.result import AsyncResult

from lab.naive.app import app


class CacheSettings:
    """`createcachetable`, and these two settings; MAX_ENTRIES is not among them, and is 300."""

    CELERY_RESULT_BACKEND = "django-cache"
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": "my_cache_table",
        }
    }


def status(task_id: str) -> dict[str, str]:
    """Answer what Celery knows of the task that the address names."""
    result = AsyncResult(task_id, app=app)
    return {"id": task_id, "state": result.state}
