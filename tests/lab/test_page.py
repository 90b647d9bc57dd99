"""The pages of the lab, and what the registry says of the code."""

import json
import os
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.test import Client

from accounts.models import User
from lab import notes, places, reference, results, runs
from lab.experiment import EXPERIMENTS as ENTERED
from lab.experiments import CHAPTERS, EXPERIMENTS
from myproject.celery import app
from myproject.processes import created_at
from tests.factories import make_user
from tests.test_docs import defines

pytestmark = pytest.mark.django_db

SLUG = "wiped-redis"
ROOT = Path(settings.BASE_DIR)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runs, "HOME", tmp_path)
    monkeypatch.setattr(runs, "FILE", tmp_path / "progress.json")
    return tmp_path


def write(**state: Any) -> None:
    runs.FILE.write_text(json.dumps({"slug": SLUG, "sides": {}, **state}))


def going(**state: Any) -> None:
    write(**{"state": "running ours", "pid": os.getpid(), "since": created_at(os.getpid()), **state})


def text(client: Client, path: str = f"/lab/{SLUG}/") -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


# --- The code ---


def test_each_place_leads_to_a_page_that_marks_it(client: Client) -> None:
    pages = [text(client, f"/lab/{slug}/") for slug in EXPERIMENTS] + [text(client, "/lab/")]
    links = {link for page in pages for link in re.findall(r'<a href="([^"]+)"><code>', page)}

    assert len(links) > 2 * len(EXPERIMENTS)
    for link in links:
        assert ('<mark id="here">' in text(client, unescape(link).partition("#")[0])) == ("name=" in link), link


def test_mark_is_where_the_name_is_defined() -> None:
    for snippet in [each for chosen in EXPERIMENTS.values() for side in chosen.sides.values() for each in side.code]:
        [marked] = [line for line in places.lines_of(snippet.path, snippet.name) if line.is_marked]
        assert marked.number in [line.number for line in snippet.lines], snippet.place
    composed = (ROOT / "docker-compose.yml").read_text().splitlines()
    for name in ("migrate", "redis"):
        [marked] = [line for line in places.lines_of("docker-compose.yml", name) if line.is_marked]
        assert marked.text == f"  {name}:"
        assert "services:" in composed[: marked.number]


@pytest.mark.parametrize("path", ["manage.py", ".env", "orders/../.env", "/etc/passwd", "orders", "\0"])
def test_file_that_no_experiment_names_is_not_shown(path: str, client: Client) -> None:
    assert client.get(f"/lab/files/{quote(path)}").status_code == 404


# --- The registry ---


@pytest.mark.parametrize("slug", EXPERIMENTS)
def test_experiment_shows_the_line_that_matters_on_each_side(slug: str) -> None:
    for side in EXPERIMENTS[slug].sides.values():
        assert any(line.is_marked for snippet in side.code for line in snippet.lines), side.line
        assert side.claims


@pytest.mark.parametrize("slug", EXPERIMENTS)
def test_experiment_names_code_test_and_page_that_exist(slug: str) -> None:
    chosen = EXPERIMENTS[slug]

    assert [place for place in chosen.answers if not defines(*place.split(" · "))] == []
    assert (ROOT / chosen.test).is_file()
    assert (ROOT / "docs" / chosen.docs).is_file()


def test_ours_is_code_of_the_shop_and_not_of_the_lab() -> None:
    shown = {snippet.path for each in EXPERIMENTS.values() for snippet in each.ours.code}

    assert [path for path in shown if path.startswith(("lab/", "tests/"))] == []
    assert all(s.path.startswith("lab/naive/") for each in EXPERIMENTS.values() for s in each.naive.code)


def test_each_experiment_is_in_a_chapter() -> None:
    assert sorted(slug for slugs in CHAPTERS.values() for slug in slugs) == sorted(ENTERED)


@pytest.mark.parametrize("note", notes.NOTES, ids=lambda note: note.practice)
def test_note_names_code_that_exists(note: notes.Note) -> None:
    assert note.answers
    assert [place for place in note.answers if not defines(*place.split(" · "))] == []


# --- The pages ---


def test_page_lists_all_experiments(client: Client) -> None:
    page = text(client, "/lab/")

    assert [slug for slug in EXPERIMENTS if f'href="/lab/{slug}/"' not in page] == []


@pytest.mark.parametrize("slug", EXPERIMENTS)
def test_page_shows_both_ways(slug: str, client: Client) -> None:
    page = text(client, f"/lab/{slug}/")

    assert page.count("<mark>") >= 2
    assert f'action="/lab/{slug}/run/"' in page


def test_unknown_experiment_is_not_found(client: Client) -> None:
    assert [client.get("/lab/nothing/").status_code, client.post("/lab/nothing/run/").status_code] == [404, 404]


def test_page_follows_its_run_and_offers_no_second_one(client: Client) -> None:
    going(sides={"naive": {"steps": [[0.5, "Redis is wiped."]], "numbers": {"placed": 10}, "done": True, "broken": []}})

    page = text(client)

    assert f'hx-get="/lab/{SLUG}/live/"' in page
    assert "Redis is wiped." in page
    assert "Fails as expected" in page
    assert "/run/" not in page


def test_page_of_another_experiment_says_what_runs(client: Client) -> None:
    going()

    page = text(client, "/lab/killed-worker/")

    assert "Another experiment is running" in page
    assert "/run/" not in page


def test_page_says_when_a_run_was_cut_off(client: Client) -> None:
    going(since=1.0)

    page = text(client)

    assert "stopped before its end" in page
    assert "hx-get" not in page


def test_page_says_what_did_not_show(client: Client) -> None:
    side = {"steps": [], "numbers": {"lost": 0}, "done": True, "broken": ["lost is 0, not 10"]}
    write(state="done", sides={"naive": side})

    page = text(client)

    assert "Not as expected" in page
    assert "lost is 0, not 10" in page


def test_page_that_cannot_be_read_is_as_if_nothing_had_run(client: Client) -> None:
    runs.FILE.write_text('{"slug": "wi')

    assert "Run it" in text(client)


def test_second_click_starts_nothing(client: Client) -> None:
    going()

    answer = client.post("/lab/killed-worker/run/")

    assert answer.status_code == 302
    assert runs.latest().slug == SLUG
    assert "One experiment at a time" in text(client, "/lab/killed-worker/")


@pytest.mark.parametrize(("method", "path"), [("get", ""), ("get", f"{SLUG}/"), ("post", f"{SLUG}/run/")])
def test_lab_of_production_is_for_staff_with_the_permission(
    method: str, path: str, settings: Any, customer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LAB_IS_OPEN = False
    monkeypatch.setattr(runs, "start", lambda slug: True)
    people = [None, customer, make_user(is_staff=True), make_user(is_staff=True, is_superuser=True)]

    found = []
    for person in people:
        client = Client()
        if person:
            client.force_login(person)
        found.append(getattr(client, method)(f"/lab/{path}").status_code)

    assert found == [302, 403, 403, 302 if method == "post" else 200]


def test_tasks_of_the_tutorials_are_none_of_the_shop_s() -> None:
    app.finalize()

    assert [name for name in app.tasks if name.startswith("lab.")] == []


def test_documentation_has_each_experiment_and_each_note() -> None:
    page = reference.page()

    assert [slug for slug in EXPERIMENTS if f"The experiment: `{slug}`" not in page] == []
    assert page.count("\n### ") == len(EXPERIMENTS) + len(notes.NOTES)


@pytest.mark.parametrize("slug", results.known())
def test_numbers_of_the_documentation_are_as_told(slug: str) -> None:
    known = results.known()[slug]

    assert {name: side.broken(known[name]) for name, side in EXPERIMENTS[slug].sides.items()} == {
        "naive": [],
        "ours": [],
    }
