"""Each promise of the threat model names tests that there are."""

import re

from django.conf import settings

PAGE = settings.BASE_DIR / "docs" / "operations" / "threat-model.md"


def test_each_attack_stands_on_the_page() -> None:
    attacks = {f"attack/{path.name}" for path in (settings.BASE_DIR / "tests" / "attack").glob("test_*.py")}

    assert {name for name in attacks if name not in PAGE.read_text()} == set()


def test_each_promise_names_tests_that_there_are() -> None:
    promises = re.findall(r"^- (.*?)(?=\n\n|\n- )", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    named = [re.findall(r"`([\w/]+(?:\.py|/))`", promise.rpartition("(")[2]) for promise in promises]

    assert len(promises) > 30
    assert all(named), promises
    assert [path for paths in named for path in paths if not (settings.BASE_DIR / "tests" / path).exists()] == []
