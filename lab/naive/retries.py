"""Retries as the tutorials write them."""

from typing import Any

import requests
from celery.exceptions import MaxRetriesExceededError
from django.conf import settings
from django.core.mail import send_mail
from django.utils import timezone

from lab.naive.app import app
from orders.models import InventorySync, SyncStatus


@app.task(bind=True, max_retries=3)
def send_welcome(self: Any, address: str) -> None:
    """Send a mail, and try again whatever goes wrong."""
    try:
        send_mail("Welcome", "It is good to have you here.", None, [address])
    except Exception as error:
        raise self.retry(exc=error, countdown=0) from error


@app.task(bind=True, max_retries=3)
def sync_inventory(self: Any, sync_id: int) -> None:
    """Ask the warehouse; after the last attempt mark the run as failed."""
    try:
        headers = {"Authorization": f"Bearer {settings.WAREHOUSE_TOKEN}"}
        requests.get(f"{settings.WAREHOUSE_URL}/levels", headers=headers, timeout=5).raise_for_status()
    except requests.RequestException as error:
        try:
            raise self.retry(exc=error, countdown=0)
        except MaxRetriesExceededError:
            ended = {"status": SyncStatus.FAILED, "due_at": None, "finished_at": timezone.now()}
            InventorySync.objects.filter(pk=sync_id).update(**ended)
