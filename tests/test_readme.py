"""The README's tables are compared with the code, so that they stay true."""

import re

from django.conf import settings

from myproject.celery import app

README = (settings.BASE_DIR / "README.md").read_text()


def rows_of_tasks() -> dict[str, tuple[str, str]]:
    found = re.findall(r"^\| `([\w.]+)` \| (\w+) \| [^|]+ \| ([^|]+) \|$", README, re.MULTILINE)
    return {name: (queue, purpose.strip()) for name, queue, purpose in found}


def test_readme_lists_each_task_with_its_queue_and_purpose() -> None:
    app.loader.import_default_modules()

    ours = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}

    assert rows_of_tasks() == {
        name: (
            app.amqp.router.route({}, name)["queue"].name,
            (task.__doc__ or "").split(" Safe to repeat:")[0].strip(),
        )
        for name, task in ours.items()
    }


def test_tasks_say_why_they_are_safe_to_repeat() -> None:
    app.loader.import_default_modules()

    silent = [
        name
        for name, task in app.tasks.items()
        if not name.startswith("celery.") and "Safe to repeat:" not in (task.__doc__ or "")
    ]

    assert silent == []


def test_readme_names_only_files_and_functions_that_exist() -> None:
    walk = re.findall(r"^\| \d \| `([\w/.]+)` · `(\w+)`", README, re.MULTILINE)

    missing = [(path, name) for path, name in walk if f"def {name}(" not in (settings.BASE_DIR / path).read_text()]

    assert len(walk) == 4
    assert missing == []
