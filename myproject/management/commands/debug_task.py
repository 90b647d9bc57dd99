import time
from argparse import ArgumentParser
from typing import Any

from celery.exceptions import TimeoutError as NoAnswer
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from kombu.exceptions import OperationalError as BrokerError

from myproject.celery import debug_task
from myproject.transport import results

SECONDS = 10


class Command(BaseCommand):
    help = "Send debug_task through a queue and back: broker, worker and result backend have all to answer."

    def add_arguments(self, parser: ArgumentParser) -> None:
        names = [queue.name for queue in settings.CELERY_TASK_QUEUES]
        parser.add_argument("--queue", choices=names, default=settings.CELERY_TASK_DEFAULT_QUEUE)
        parser.add_argument("--seconds", type=float, default=SECONDS, help="How long to wait for the worker.")

    def handle(self, *args: Any, queue: str, seconds: float, **options: Any) -> None:
        begun = time.monotonic()
        try:
            # Only here somebody reads the result.
            sent = debug_task.apply_async(queue=queue, expires=seconds, ignore_result=False)
            sent.get(timeout=seconds, interval=0.05)
        except BrokerError as error:
            raise CommandError(f"The broker does not take the message: {error}") from error
        except NoAnswer as error:
            raise CommandError(f"No worker ran it within {seconds:g} s. Does one read the queue {queue}?") from error
        worker = results.find([sent.id])[sent.id].worker
        self.stdout.write(f"{worker} ran it from the queue {queue}; back after {time.monotonic() - begun:.2f} s.")
