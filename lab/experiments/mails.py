"""Mail to one person, and to everybody."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from django.conf import settings
from django.test import override_settings
from django.utils import timezone

from accounts.models import User
from durable import mail
from lab import rows
from lab.arena import NAIVE, OURS, Arena
from lab.experiment import Numbers, Side, at_most, exactly, experiment
from lab.naive import mails as naive
from orders import tasks
from orders.models import Digest, Order, Status, week_of

MAILS = 20


@contextmanager
def counted() -> Iterator[list[int]]:
    """Stand between the shop and the mail server; yields a list that grows by each connection."""
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=relay, args=(server, seen), daemon=True).start()
        here = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": server.getsockname()[1]}
        # A run of tests keeps mail in memory instead.
        with override_settings(EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend", **here):
            yield seen


def relay(server: socket.socket, seen: list[int]) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        seen.append(1)
        upstream = socket.create_connection(("127.0.0.1", settings_port()))
        for here, there in ((client, upstream), (upstream, client)):
            threading.Thread(target=pump, args=(here, there), daemon=True).start()


def pump(here: socket.socket, there: socket.socket) -> None:
    try:
        while data := here.recv(65536):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)
    except OSError:
        pass


# The sandbox's own, read before anything is overridden.
SANDBOX_SMTP = settings.EMAIL_PORT


def settings_port() -> int:
    return int(SANDBOX_SMTP)


def owing(count: int) -> list[int]:
    """Make completed orders that owe their confirmation."""
    ids = rows.place_in_bulk(count)
    now = timezone.now()
    done = {"status": Status.COMPLETED, "completed_at": now, "due_at": None, "mail_due_at": now}
    Order.objects.filter(pk__in=ids).update(**done)
    return ids


def naive_connections(lab: Arena) -> Numbers:
    ids = owing(MAILS)
    lab.say(f"{MAILS} confirmations are to be sent.", asked=MAILS)
    with counted() as seen:
        for pk in ids:
            naive.send_confirmation.run(pk)
    return sent(lab, seen)


def ours_connections(lab: Arena) -> Numbers:
    ids = owing(MAILS)
    lab.say(f"{MAILS} confirmations are to be sent.", asked=MAILS)
    with counted() as seen:
        for pk in ids:
            tasks.send_order_confirmation.run(order_id=pk)
    return sent(lab, seen)


def sent(lab: Arena, seen: list[int]) -> Numbers:
    mailed = len(lab.mails(rows.person().email))
    lab.say(f"{mailed} mails, over {len(seen)} connections.")
    return lab.count(mailed=mailed, connections=len(seen))


experiment(
    "connection-per-mail",
    "A connection to the mail server for each mail",
    practice="Call send_mail in the task of each mail.",
    fault=f"{MAILS} mails are due at once.",
    naive=Side(
        naive_connections,
        (naive.send_confirmation,),
        "send_mail(",
        {"mailed": exactly(MAILS), "connections": exactly(MAILS)},
    ),
    ours=Side(
        ours_connections,
        (mail.deliver,),
        "with connected() as connection",
        {"mailed": exactly(MAILS), "connections": at_most(2)},
    ),
    why="The greeting, TLS and the password cost more than the mail, and many servers slow down who comes that often. "
    "Ours claims what is due, up to fifty mails, and sends them over one connection.",
    answers=("durable/mail.py · deliver", "durable/mail.py · claim_mail"),
    test="tests/test_mail.py",
    docs="decisions/0008-mail-is-a-row.md",
)

CROWD = 1000


def crowd() -> None:
    User.objects.bulk_create(
        User(email=f"reader{n}@example.com", name=f"Reader {n}", wants_digest=True) for n in range(CROWD)
    )


def naive_loop(lab: Arena) -> Numbers:
    lab.rest(NAIVE)
    crowd()
    naive.queue_digests.run()
    lab.say(f"The digest is queued for {CROWD:,} people.", messages=lab.length("celery"))
    naive.queue_digests.run()
    messages = lab.length("celery")
    lab.say("The task is delivered once more, as after the death of its worker.")
    return lab.count(messages=messages, doubled=messages - CROWD)


def ours_loop(lab: Arena) -> Numbers:
    lab.rest(OURS)
    crowd()
    tasks.send_weekly_digest.run()
    lab.say(f"The digest is queued for {CROWD:,} people.", messages=lab.length("bulk"))
    tasks.send_weekly_digest.run()
    week: date = week_of(timezone.now())
    planned = Digest.objects.filter(week=week).count()
    lab.say("The task is delivered once more, as after the death of its worker.")
    return lab.count(messages=lab.length("bulk"), rows=planned, doubled=planned - CROWD)


experiment(
    "digest-by-loop",
    "A digest queued by one delay() for each person",
    practice="Loop over all people, and queue a mail for each.",
    fault="The task dies in the middle, and runs again from the top.",
    naive=Side(
        naive_loop,
        (naive.queue_digests,),
        "send_digest.delay(person.pk)",
        {"messages": exactly(2 * CROWD), "doubled": exactly(CROWD)},
    ),
    ours=Side(
        ours_loop,
        (tasks.send_weekly_digest, tasks.queue_digests),
        "digests.plan(week)",
        {"messages": at_most(10), "rows": exactly(CROWD), "doubled": exactly(0)},
    ),
    why="As many messages as people, in front of everybody's confirmation; and who had the mail before gets it again. "
    "Ours plans a row for each person in one statement, once a week, and a message sends two hundred of them.",
    answers=("orders/models/digests.py · PLAN", "orders/tasks.py · queue_digests", "orders/digests.py · send_chunk"),
    test="tests/orders/test_digests.py",
    docs="tour/mail.md",
)
