"""`make run`, as it starts, ends and takes new code: each test has a shop of its own, half a minute of both cores."""

import shutil
import sys
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from tests.operations.test_run import SECONDS, Run, has_word
from tests.shop import answers, wait_for

pytestmark = [pytest.mark.operations, pytest.mark.timeout(300)]


def test_start_by_make_ends_with_make(tmp_path: Path) -> None:
    # The terminal's process is `make`: without it the shop could not be stopped.
    (tmp_path / "Makefile").write_text(f"run:\n\t@cd {settings.BASE_DIR} && exec {sys.executable} manage.py run\n")

    with Run(tmp_path, command=["make", "-f", str(tmp_path / "Makefile"), "run"]) as run:
        wait_for(lambda: answers(run.url), "the shop", SECONDS)
        everybody = run.everybody()
        run.process.kill()

        assert psutil.wait_procs(everybody, SECONDS)[1] == []


@pytest.mark.parametrize("names", [["run"], ["run", "processes.json"]], ids=["run", "run and its guard"])
def test_shop_starts_again_when_its_first_process_was_killed(names: list[str], tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        wait_for(lambda: answers(run.url), "the shop", SECONDS)
        everybody = run.everybody()
        victims = [next(each for each in everybody if has_word(each, name)) for name in reversed(names)]
        for victim in victims:
            victim.kill()
        run.process.wait(SECONDS)

        with Run(tmp_path, "again", run.offset) as again:
            assert psutil.wait_procs(everybody, SECONDS)[1] == []
            wait_for(lambda: answers(again.url) or again.process.poll() is not None, "the shop", SECONDS)
            assert again.process.poll() is None, again.said()


def test_worker_takes_new_code_when_it_has_ended_what_it_does(tmp_path: Path) -> None:
    code = tmp_path / "code"
    shutil.copytree(settings.BASE_DIR, code, ignore=shutil.ignore_patterns(".git", ".venv", "var", "tests", "docs"))
    tasks = code / "myproject" / "try_it" / "tasks.py"
    with Run(tmp_path, code=code) as run:
        wait_for(lambda: answers(run.url), "the shop", SECONDS)
        old = run.celery("call", "myproject.tasks.wait", "--kwargs", '{"seconds": 8}')
        wait_for(lambda: f"task_id={old}" in run.said(), "the task to start")

        tasks.write_text(tasks.read_text().replace("Waited", "Rested") + "def broken(:\n")
        wait_for(lambda: "the workers go on with the code of before" in run.said(), "a word about the fault")
        tasks.write_text(tasks.read_text().removesuffix("def broken(:\n"))
        wait_for(lambda: "tasks.py has changed; worker ends what it does" in run.said(), "a word about the change")
        new = run.celery("call", "myproject.tasks.wait", "--kwargs", '{"seconds": 0}')

        results = [run.celery("result", task_id) for task_id in (old, new)]

    assert results == ["Waited 8 s.", "Rested 0 s."]
    assert "died" not in run.said()


def web_says(run: Run, words: str) -> bool:
    return any(" web " in line and words in line for line in run.said().splitlines())


BEGUN = {
    "__init__.py": "",
    "apps.py": 'from django.apps import AppConfig\nclass Begun(AppConfig):\n    name = "begun"\n',
    "urls.py": 'urlpatterns = []\nprint("The addresses are read.")\n',
}


def test_web_takes_an_app_that_is_begun_and_each_new_file_of_it(tmp_path: Path) -> None:
    code = tmp_path / "code"
    shutil.copytree(settings.BASE_DIR, code, ignore=shutil.ignore_patterns(".git", ".venv", "var", "tests", "docs"))
    (code / "begun").mkdir()
    with Run(tmp_path, code=code) as run:
        wait_for(lambda: answers(run.url), "the shop", SECONDS)

        for name, text in BEGUN.items():
            (code / "begun" / name).write_text(text)
        names = code / "myproject" / "settings.py"
        names.write_text(names.read_text().replace('APPS = ["accounts"', 'APPS = ["begun", "accounts"'))
        wait_for(lambda: answers(run.url) and web_says(run, "The addresses are read."), "the app", SECONDS)
        (code / "begun" / "admin.py").write_text('print("The admin is read.")\n')
        wait_for(lambda: answers(run.url) and web_says(run, "The admin is read."), "the new file", SECONDS)

    assert "died" not in run.said()
