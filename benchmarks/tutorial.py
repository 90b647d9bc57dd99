"""The opponent: an order as the tutorials process it, and Celery as they set it up.

Get, change, save; per item get, change, save; charge; save. Results in the Django database, their start tracked; a
database connection for each task, as Celery has it unless told otherwise. It writes no timeline, queues no
confirmation, sends no events, and loses stock and charges when anything dies, which is not counted against it here.
"""

from celery import Celery
from django.conf import settings
from django.utils import timezone

from . import gateway

# Django's defaults.
settings.DATABASES["default"] |= {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}
# Our start-up checks would rightly stop such a worker.
settings.SILENCED_SYSTEM_CHECKS = ["celery.E010", "celery.E012"]
app = Celery("tutorial", broker=settings.CELERY_BROKER_URL, backend="django-db", set_as_current=False)
app.conf.update(task_track_started=True, task_default_queue="tutorial", broker_connection_retry_on_startup=True)


@app.task
def process_order(order_id: int) -> str:
    from orders.models import Order, Product, Status

    order = Order.objects.get(pk=order_id)
    order.status = Status.PROCESSING
    order.save()
    for item in order.items.all():
        product = Product.objects.get(pk=item.product_id)
        product.stock -= item.quantity
        product.save()
    gateway.charge(order)
    order.status, order.completed_at, order.due_at = Status.COMPLETED, timezone.now(), None
    order.save()
    return "completed"
