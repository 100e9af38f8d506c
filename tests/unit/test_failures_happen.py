"""Every way in which a job can fail is brought about by a test that is marked with it.

`@pytest.mark.failure(...)` names what the test makes a job end with, on real parts: a
`FailureCode`, or the `TimeLimit` that has run out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from domain.failures import FailureCode, TimeLimit

MARK = "pytest.mark.failure"
ROOT = Path(__file__).parents[1]
TESTS = sorted(ROOT.rglob("test_*.py"))

Test = ast.FunctionDef | ast.AsyncFunctionDef


def marked_tests() -> Iterator[tuple[str, Test, str]]:
    """Yield the id of each marked test, the test, and the source text of its mark."""
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Test):
                test_id = f"{path.relative_to(ROOT)}::{node.name}"
                yield from ((test_id, node, named) for named in marks_of(node))


def marks_of(test: Test) -> Iterator[str]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == MARK:
            yield from map(ast.unparse, decorator.args)


MARKED = list(marked_tests())


def test_each_is_made_to_happen() -> None:
    entries = {f"{type(entry).__name__}.{entry.name}" for entry in [*FailureCode, *TimeLimit]}
    assert entries - {named for _, _, named in MARKED} == set(), "no test is marked with these"


def test_a_marked_test_checks_what_it_is_marked_with() -> None:
    assert [
        (test_id, named) for test_id, test, named in MARKED if named not in attributes_in(test)
    ] == []


def attributes_in(test: Test) -> set[str]:
    """Return the attributes that the test's body names; its decorators do not count."""
    body = [node for statement in test.body for node in ast.walk(statement)]
    return {ast.unparse(node) for node in body if isinstance(node, ast.Attribute)}
