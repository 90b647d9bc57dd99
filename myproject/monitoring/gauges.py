"""What is asked when Prometheus reads: rows and queues, which know it better than any process that counts.

Each part of the shop is asked in a thread of its own, at most every few seconds. A part that is away costs the reading
two seconds, and is a metric itself: `shop_up`. An app adds its questions by `@database.question`, in its `metrics.py`.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from datetime import datetime, timedelta
from threading import Lock, Thread
from typing import NamedTuple

from django.apps import apps
from django.db import Error, connection, transaction
from django.db.models import Count, Max, Min
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from durable.mail import OwesMail
from myproject.alerting.models import Alert, Canary, DeadLetter
from myproject.monitoring import broker, metrics
from myproject.transport.envelope import Kind

log = logging.getLogger(__name__)

# Seconds for which an answer is good enough, and that a reader waits for one.
FRESH = 5
PATIENCE = 2
# What is older says nothing of now.
STALE = 60
# A query that takes longer is cancelled, so that metrics never slow the database down.
LIMIT = "SET LOCAL statement_timeout = '1500ms'"

Question = Callable[[], Iterable[Metric]]


class Answer(NamedTuple):
    metrics: list[Metric]
    is_up: bool


NOTHING = Answer([], is_up=False)


class Part:
    """A part of the shop that may be unavailable, and the queries to it."""

    def __init__(self, name: str, ask: Callable[[Question], list[Metric]], errors: tuple[type[Exception], ...]) -> None:
        self.name = name
        self.ask = ask
        self.errors = errors
        self.questions: list[Question] = []
        self.lock = Lock()
        self.answer: Future[Answer] | None = None
        self.last = NOTHING
        self.asked_at = self.answered_at = 0.0

    def question(self, question: Question) -> Question:
        """Decorate what answers with metrics."""
        self.questions.append(question)
        return question

    def latest(self) -> Future[Answer]:
        """Return the answer or a future; a part is never queried twice at the same time."""
        with self.lock:
            if self.answer is None or (self.answer.done() and time.monotonic() - self.asked_at > FRESH):
                self.answer = self.begin()
            return self.answer

    def begin(self) -> Future[Answer]:
        # Not a pool of threads: the process would wait at its end for one that hangs.
        self.asked_at, answer = time.monotonic(), Future[Answer]()
        Thread(target=self.keep, args=[answer], name=f"ask {self.name}", daemon=True).start()
        return answer

    def keep(self, promise: Future[Answer]) -> None:
        """Answer in a thread that then closes its connection."""
        self.last, self.answered_at = self.answers(), time.monotonic()
        if (seconds := self.answered_at - self.asked_at) > PATIENCE:
            log.warning("%s took %.1f s to answer", self.name, seconds)
        promise.set_result(self.last)
        connection.close()

    def meanwhile(self) -> Answer:
        """Return the previous answer if the part is late; nothing if that is too old."""
        is_old = time.monotonic() - self.answered_at > STALE
        return Answer([] if is_old else self.last.metrics, is_up=False)

    def answers(self) -> Answer:
        found: list[Metric] = []
        is_up = True
        for question in self.questions:
            try:
                found += self.ask(question)
            except self.errors as error:
                is_up = False
                log.warning("%s did not answer %s: %s", self.name, question.__name__, error)
            except Exception:
                is_up = False
                log.exception("%s could not be asked for %s", self.name, question.__name__)
        return Answer(found, is_up)


def ask_database(question: Question) -> list[Metric]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LIMIT)
        return list(question())


def ask_broker(question: Question) -> list[Metric]:
    return list(question())


database = Part("database", ask_database, (Error,))
the_broker = Part("broker", ask_broker, (broker.Away,))


class Asked(Collector):
    """Puts the parts' answers beside what was counted."""

    def collect(self) -> Iterator[Metric]:
        # All are asked before the first is waited for.
        latest = {part: part.latest() for part in (database, the_broker)}
        wait(latest.values(), PATIENCE)
        answers = {part.name: answer.result() if answer.done() else part.meanwhile() for part, answer in latest.items()}
        for answer in answers.values():
            yield from answer.metrics
        is_up = {name: float(answer.is_up) for name, answer in answers.items()}
        yield gauges("shop_up", "1 when the part answered all it was asked, in time.", "part", is_up)


metrics.ASKED.register(Asked())


def gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def gauges(name: str, words: str, label: str, found: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=[label])
    for value, number in found.items():
        family.add_metric([value], number)
    return family


def age(moment: datetime | None) -> float:
    """Return the seconds since then; 0 for None, and for what is yet to come."""
    return max(0.0, (timezone.now() - moment).total_seconds()) if moment else 0.0


# --- What belongs to no app ---


@database.question
def latency() -> Iterator[Metric]:
    start = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    yield gauge("shop_database_seconds", "How long the database took for a round trip.", time.perf_counter() - start)


@database.question
def beat() -> Iterator[Metric]:
    last = PeriodicTask.objects.filter(enabled=True).aggregate(last=Max("last_run_at"))["last"]
    words = "When beat last queued something, as it wrote down itself; 0: never."
    yield gauge("shop_beat_timestamp_seconds", words, last.timestamp() if last else 0)


@database.question
def alerts() -> Iterator[Metric]:
    failed = Alert.objects.filter(last_at__gt=timezone.now() - timedelta(days=1)).exclude(error="")
    since = Alert.objects.filter(due_at__isnull=False).aggregate(since=Min("due_at"))["since"]
    yield gauge("shop_alerts_untold", "Alerts of the last day that somebody could not be told of.", failed.count())
    yield gauge("shop_alerts_overdue_seconds", "For how long the oldest has been due and not been tried.", age(since))


@database.question
def dead_letters() -> Iterator[Metric]:
    found = dict(DeadLetter.objects.values_list("kind").annotate(count=Count("pk")).order_by("kind"))
    kinds = {kind.value: float(found.get(kind.value, 0)) for kind in Kind}
    yield gauges("shop_dead_letters", "Dead letters that staff have not handled.", "kind", kinds)


@database.question
def canaries() -> Iterator[Metric]:
    """What is overdue the row itself says, so that Prometheus and the shop's own alert mean the same."""
    rows = list(Canary.objects.order_by("queue"))
    waited = {row.queue: row.in_queue.total_seconds() for row in rows if row.in_queue is not None}
    overdue = {row.queue: float(row.is_overdue) for row in rows}
    yield gauges("shop_canary_seconds", "How long the newest canary that ran waited for a worker.", "queue", waited)
    yield gauges("shop_canary_overdue", "1 when none has come through for too long.", "queue", overdue)


@database.question
def mails() -> Iterator[Metric]:
    count, overdue = {}, {}
    for model in apps.get_models():
        if issubclass(model, OwesMail):
            owed = model._default_manager.filter(mail_sent_at=None, mail_due_at__isnull=False)
            found = owed.aggregate(count=Count("pk"), since=Min(model.owed_since))
            name = str(model._meta.model_name)
            count[name], overdue[name] = found["count"], age(found["since"])
    yield gauges("shop_mails_owed", "Mails that are owed, by the row that owes them.", "kind", count)
    yield gauges("shop_mails_overdue_seconds", "For how long the oldest of them has been owed.", "kind", overdue)


@the_broker.question
def queues() -> Iterator[Metric]:
    with broker.connected() as link:
        waiting, running = broker.waiting(link), broker.running(link)
    yield gauge("shop_broker_seconds", "How long the broker took to be reached and to answer.", broker.latency())
    lengths = {queue.queue: queue.messages for queue in waiting}
    # Left out where messages wait that do not say since when, as on RabbitMQ.
    ages = {
        queue.queue: queue.age.total_seconds() if queue.age else 0
        for queue in waiting
        if queue.age or not queue.messages
    }
    yield gauges("shop_queue_waiting", "Messages that no worker has taken.", "queue", lengths)
    yield gauges("shop_queue_running", "Messages that a worker has taken and not ended.", "queue", running)
    yield gauges("shop_queue_oldest_seconds", "For how long the oldest has waited; 0: none waits.", "queue", ages)


@the_broker.question
def workers() -> Iterator[Metric]:
    with broker.connected() as link:
        yield gauge("shop_workers", "Workers that answer.", len(broker.workers(link)))
