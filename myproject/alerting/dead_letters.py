"""Dead letters: messages that no worker can run, stored for staff, with one alert per kind."""

import atexit
import base64
import json
import logging
import time
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any

from django.db import Error, connections, transaction

from myproject.alerting.alerts import alert
from myproject.alerting.models import MAX_KEPT, DeadLetter
from myproject.celery import app
from myproject.transport.envelope import Kind, Refusal, refused

log = logging.getLogger(__name__)

# How many may wait in memory for the database, and how many are written at once.
MAX_WAITING = 1000
AT_ONCE = 200
# Seconds that a process waits at its end for unwritten letters.
PATIENCE = 3


class Keeper:
    """Writes to the database in its own thread, so that queues wait neither for letters nor for a frozen database."""

    def __init__(self) -> None:
        self.waiting: Queue[Refusal] = Queue(MAX_WAITING)
        self.thread: Thread | None = None

    def take(self, refusal: Refusal, **kwargs: Any) -> None:
        try:
            self.waiting.put_nowait(refusal._replace(raw=refusal.raw[:MAX_KEPT]))
        except Full:
            log.error("A dead letter of %s was not kept, too many wait: %s", refusal.queue, refusal.reason)
        # Started on first use: a worker's forked processes have no threads.
        if not (self.thread and self.thread.is_alive()):
            self.thread = Thread(target=self.run, name="dead letters", daemon=True)
            self.thread.start()

    def run(self) -> None:
        while True:
            letters = self.next_ones()
            try:
                bury(letters)
            except Exception:
                log.exception("%s dead letters were not kept", len(letters))
            finally:
                connections.close_all()
                for _ in letters:
                    self.waiting.task_done()

    def next_ones(self) -> list[Refusal]:
        """Wait for a letter, and return it with all that have arrived by then."""
        letters = [self.waiting.get()]
        try:
            while len(letters) < AT_ONCE:
                letters.append(self.waiting.get_nowait())
        except Empty:
            pass
        return letters

    def flush(self) -> None:
        """Wait until all are written, up to a limit."""
        until = time.monotonic() + PATIENCE
        while self.waiting.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)


keeper = Keeper()
refused.connect(keeper.take)
atexit.register(keeper.flush)


def bury(letters: list[Refusal]) -> None:
    """Store the messages and alert; if the database is unavailable, the rows are lost."""
    try:
        DeadLetter.objects.record(letters)
    except Error as error:
        log.error("%s dead letters were not kept, the first begins %r: %s", len(letters), letters[0].raw[:200], error)
    for kind in Kind:
        if found := [letter for letter in letters if letter.kind == kind]:
            alert_of(found[-1], len(found))


def alert_of(letter: Refusal, times: int) -> None:
    # Its task name is untrusted.
    message = f"It came by {letter.queue}, calls itself {letter.task or '?'}, and is a dead letter: {letter.reason}."
    alert("A message was refused", message, cause=f"dead letter, {letter.kind}", times=times)


@transaction.atomic
def send_again(letter: DeadLetter) -> bool:
    """Put the unchanged message back in its queue, as the one who deletes its row; False if somebody else did.

    It is gone only when it is in its queue. A worker that does not know it either, or its signature, buries it anew.
    """
    gone, _ = DeadLetter.objects.filter(pk=letter.pk).delete()
    if gone:
        publish(letter)
    return bool(gone)


def publish(letter: DeadLetter) -> None:
    whole = json.loads(bytes(letter.raw))
    kept = {name: whole["properties"].get(name) for name in ("correlation_id", "reply_to", "delivery_mode", "priority")}
    with app.connection_for_write() as link, link.channel() as channel:
        message = channel.prepare_message(
            base64.b64decode(whole["body"]),
            content_type=whole["content-type"],
            content_encoding=whole["content-encoding"],
            headers=whole["headers"],
            properties={name: value for name, value in kept.items() if value is not None},
        )
        # Every queue has its own name as an address at the exchange without one, on each broker.
        channel.basic_publish(message, exchange="", routing_key=letter.queue)
