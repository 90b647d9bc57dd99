"""`.env.example` lists what the code reads, all of it, with the defaults that the code has."""

import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import environ
import pytest
from django.conf import settings

ROOT = settings.BASE_DIR
EXAMPLE = (ROOT / ".env.example").read_text()
READERS = ["myproject", *settings.APPS, "sandbox", "deploy", "flowerconfig.py", "manage.py"]
# Belong to the system and to Django, not to this shop.
NOT_OURS = {"PATH", "DJANGO_SETTINGS_MODULE"}


def variables_read() -> set[str]:
    """Return the names of the environment variables that the code asks for."""
    paths = (path for name in READERS for path in ([ROOT / name] if "." in name else (ROOT / name).rglob("*.py")))
    asked = re.compile(r"""\benv(?:iron(?:ment)?)?(?:\.\w+)?[\[(]\s*["']([A-Z][A-Z_]+)["']|\bgetenv\(["'](\w+)["']""")
    found = {name for path in paths for pair in asked.findall(path.read_text()) for name in pair if name}
    return found - NOT_OURS


def variables_of_compose() -> set[str]:
    """Return the names of the variables that the compose files, or Compose itself, ask for."""
    files = "".join(path.read_text() for path in ROOT.glob("docker-compose*.yml"))
    return {"COMPOSE_FILE", *re.findall(r"(?<!\$)\$\{(\w+)", files)}


def example() -> dict[str, str]:
    return dict(re.findall(r"^# ([A-Z][A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))


def settings_with(dotenv: Path) -> dict[str, Any]:
    """Read the settings anew, with nothing from outside but that file."""
    outside = {name: value for name, value in os.environ.items() if name not in example()}
    read_env = environ.Env.read_env
    with patch.dict(os.environ, outside, clear=True), patch.object(environ.Env, "read_env"), patch.dict(sys.modules):
        read_env(dotenv)
        for name in ("myproject.variables", *(f"{app}.settings" for app in settings.APPS)):
            sys.modules.pop(name, None)
        names = runpy.run_path(str(ROOT / "myproject" / "settings.py"))
    return {name: value for name, value in names.items() if name.isupper()}


def test_env_example_lists_what_the_code_reads() -> None:
    assert set(example()) == variables_read() | variables_of_compose()


def test_env_example_explains_each_variable() -> None:
    lines = EXAMPLE.splitlines()
    names = [number for number, line in enumerate(lines) if re.match(r"# [A-Z_]+=", line)]

    unexplained = [lines[number] for number in names if not re.match(r"# .*[.:;]", lines[number - 1])]

    assert len(names) == len(example())
    assert unexplained == []


def test_env_example_changes_nothing_when_it_is_used_as_it_is(tmp_path: Path) -> None:
    nothing, everything = tmp_path / "nothing", tmp_path / "everything"
    nothing.touch()
    everything.write_text("\n".join(f"{name}={value}" for name, value in example().items() if value))

    changed = {name for name, value in settings_with(nothing).items() if settings_with(everything)[name] != value}

    assert changed - {"CELERY_TASK_QUEUES"} == set()


@pytest.mark.parametrize("name", ["WEB_BIND", "WEB_CONCURRENCY", "FLOWER_ADDRESS"])
def test_env_example_has_the_servers_defaults(name: str) -> None:
    code = (ROOT / "deploy" / "gunicorn.conf.py").read_text() + (ROOT / "flowerconfig.py").read_text()
    default = re.search(rf"""["']{name}["'],\s*(?:default=)?f?"([^"]*)"\)""", code)

    assert default is not None
    assert example()[name] == default[1].replace("{settings.PORT}", "8000")
