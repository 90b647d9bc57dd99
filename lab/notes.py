"""Practices of the tutorials that this shop does otherwise, without a race that could be watched."""

from typing import NamedTuple


class Note(NamedTuple):
    practice: str
    happens: str
    answers: tuple[str, ...]


NOTES = [
    Note(
        "One pair of limits, 25 and 30 minutes, for all tasks",
        "A mail that hangs keeps a worker from everything else for 25 minutes. Nothing compares the limits with the "
        "visibility timeout, after which Redis delivers the message twice.",
        (
            "orders/tasks.py · LEASE_SECONDS",
            "accounts/tasks.py · LIMITS",
            "durable/checks/traps.py · task_outlives_the_visibility_timeout",
        ),
    ),
    Note(
        "A base class that derives from Celery's plain Task",
        "Its tasks have no `delay_on_commit`: only `DjangoTask` brings it.",
        ("durable/task.py · Task",),
    ),
    Note(
        "The sender's address written into the task",
        "It stays `from@example.com` wherever the code goes.",
        ("myproject/settings.py · DEFAULT_FROM_EMAIL", "myproject/web/mails.py · render"),
    ),
    Note(
        "autoretry_for=(RequestException,) with raise_for_status()",
        "That includes every 4xx, whose answer never changes, and pays no heed to `Retry-After`.",
        ("durable/errors.py · PermanentError", "myproject/http.py · request", "durable/task.py · retry"),
    ),
    Note(
        "A sync to an external service that sends what its message says",
        "Two messages of one person overtake each other, or a lost answer is asked for again late: the older data "
        "wins. After the last retry only a log line says that a person is missing there.",
        (
            "accounts/models/crm.py · mark_synced",
            "accounts/crm.py · put_contact",
            "accounts/services.py · catch_up_with_crm",
        ),
    ),
    Note(
        "An upload saved to a path of the web container, and that path sent to the task",
        "The worker runs elsewhere and finds no file.",
        ("orders/import_services.py · start_import", "orders/tasks.py · import_products"),
    ),
    Note(
        "A periodic task that counts stuck orders",
        "A person is told every 15 minutes, and the orders stay stuck.",
        ("orders/tasks.py · check_pending_orders",),
    ),
    Note(
        "An hourly sync_inventory that writes the warehouse's level over the stock",
        "What orders reserved since the warehouse counted is on sale again, and is sold twice; two runs at once go "
        "back in time.",
        ("orders/inventory.py · change_of", "orders/models/products.py · apply_levels", "durable/leases.py · hold"),
    ),
    Note(
        "Old rows deleted in one statement",
        "The larger the table, the longer its locks and the more memory; at some size the clean-up no longer ends.",
        ("myproject/storage/clean_ups.py · delete_in_chunks",),
    ),
    Note(
        "Expired sessions found by a column that Django's session table has not",
        "The task fails unless the project brings a session model of its own.",
        ("myproject/storage/tasks.py · clear_sessions",),
    ),
    Note(
        "A compose file without health checks, migrations or volumes, with Redis published and the password postgres",
        "The web starts before its database, tables are missing, data goes with the container, and anyone on the "
        "network who reaches port 6379 can read the queue and write to it.",
        ("docker-compose.yml · migrate", "docker-compose.yml · redis"),
    ),
    Note(
        "admin.site.unregister(TaskResult)",
        "It raises `NotRegistered`, and nothing starts, where the app is listed before django_celery_results.",
        ("myproject/monitoring/admin.py · TaskResultAdmin",),
    ),
    Note(
        "Log lines with e-mail addresses",
        "Personal data in every log, and in every place to which logs are sent.",
        ("durable/mail.py · deliver",),
    ),
    Note(
        "The welcome mail's task is given the address and the name",
        "Both lie in the broker, in logs and in results, and are old when the mail goes out; delivered twice, it "
        "welcomes twice.",
        ("accounts/tasks.py · send_welcome_email", "accounts/models/people.py · User"),
    ),
    Note(
        "send_notification_email(user_id, subject, message)",
        "The notice is in the message alone: when that is lost, so is the notice; and its words stand in every list "
        "of tasks.",
        ("accounts/services.py · notify", "accounts/tasks.py · send_notification_email"),
    ),
    Note(
        "A digest without a way out",
        "People mark it as spam; large mailbox providers refuse bulk mail without one-click unsubscribe (RFC 8058). "
        "And a link that leaves the list by GET is followed by scanners of mail.",
        (
            "accounts/unsubscribe.py · url",
            "accounts/views.py · unsubscribe_by_link",
            "myproject/web/mails.py · render",
        ),
    ),
    Note(
        "The number of mails sent counted by a second query",
        "It counts who wants one now, not what was queued: two truths, and neither is of what went out.",
        ("orders/models/digests.py · plan", "orders/tasks.py · send_weekly_digest"),
    ),
    Note(
        "A digest of the last seven days, reckoned when the mail is written",
        "A mail that is late, or sent again after an error, tells of other days than the first: orders fall between "
        "two weeks, or are in both.",
        ("orders/models/digests.py · days_before",),
    ),
    Note(
        "One schedule in the admin that cannot be read: a solar one without its library, headers that are a list",
        "Beat stops with an exception, and nothing is queued any more.",
        ("myproject/monitoring/beat.py · Scheduler", "myproject/monitoring/admin.py · PeriodicTaskForm"),
    ),
    Note(
        "Alerts from on_failure alone",
        "Celery does not call it when a process died once too often, and calls it in the worker's main process at a "
        "hard limit.",
        ("myproject/alerting/alerts.py · note_failure", "myproject/alerting/alerts.py · alert_of_failure"),
    ),
    Note(
        "A message to the chat from within the task that fails",
        "Every failure is a message, a hundred at once are a hundred, and when the chat is slow so is the task.",
        (
            "myproject/alerting/alerts.py · alert",
            "myproject/alerting/models.py · record",
            "myproject/alerting/chat.py · deliver",
        ),
    ),
    Note(
        "A thumbnail made of whatever was uploaded",
        "A file of some kilobytes claims 900 million pixels and takes the worker's memory; a photograph shows where "
        "its owner lives, and lies on its side.",
        ("orders/pictures.py · check", "orders/pictures.py · thumbnails"),
    ),
    Note(
        "The media folder served as a whole",
        "Whatever is in it is public: reports lie beside pictures.",
        ("orders/views.py · thumbnail",),
    ),
    Note(
        "CELERY_CACHE_BACKEND = 'django-cache' beside CELERY_RESULT_BACKEND = 'django-db'",
        "Nothing: results go to the database, and `django-cache` is no name of a cache. The two belong the other way "
        "round.",
        (
            "myproject/settings.py · CELERY_CACHE_BACKEND",
            "durable/checks/traps.py · cache_of_results_does_not_exist",
        ),
    ),
    Note(
        "CELERY_RESULT_BACKEND = 'redis://…'",
        "A process that queues a task first subscribes to its result. When that Redis is away, no message is sent, "
        "although the broker is there: *The Celery application must be restarted*.",
        ("myproject/transport/results.py · RedisBackend",),
    ),
    Note(
        "Or RabbitMQ: the URL, and nothing else changed",
        "Queues are classic and messages unconfirmed, a frozen server holds the click forever, and of quorum queues "
        "each retry that waits occupies a process.",
        ("myproject/transport/broker_url.py · RABBITMQ",),
    ),
]
