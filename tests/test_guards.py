"""The registry of guards fits the code. Whether each of them is noticed when it is missing, `make guards` says."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.guards import ROOT, Changed, Guard, all_guards
from tests.guards.__main__ import Broken, failed

GUARDS = all_guards()


@cache
def functions_of(path: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}


def has_test(name: str) -> bool:
    path, _, test = name.partition("::")
    return (ROOT / path).is_file() and (not test or test.partition("[")[0] in functions_of(path))


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.practice[:40])
def test_guard_stands_in_the_code_once_and_names_tests_that_there_are(guard: Guard) -> None:
    text = (ROOT / guard.file).read_text()

    assert guard.taken_out(text) != text
    assert guard.tests
    assert [name for name in guard.tests if not has_test(name)] == []


def test_each_practice_has_one_entry() -> None:
    practices = [guard.practice for guard in GUARDS]

    assert len(practices) >= 80
    assert len(set(practices)) == len(practices)


def test_edit_fails_loudly_where_the_code_has_changed() -> None:
    guard = Guard("a.toml", "area", "practice", "ours", "a.py", "held()", "all()", ("tests/a.py",))

    with pytest.raises(Changed, match="0 times"):
        guard.taken_out("row.update()")
    with pytest.raises(Changed, match="2 times"):
        guard.taken_out("held() and held()")


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("<failure/>", "tests/test_a.py::test_b"),
        ("", ""),
        ("<error/>", None),
        ("<skipped/>", None),
    ],
)
def test_guard_is_noticed_by_a_test_that_fails_and_not_by_one_that_breaks(
    case: str, found: str | None, tmp_path: Path
) -> None:
    report, log = tmp_path / "report.xml", tmp_path / "pytest.log"
    report.write_text(f'<testsuite><testcase classname="tests.test_a" name="test_b">{case}</testcase></testsuite>')
    log.touch()

    if found is None:
        with pytest.raises(Broken):
            failed(report, log)
    else:
        assert failed(report, log) == found
