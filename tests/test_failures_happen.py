"""Every way in which a job can fail is brought about by a test that is marked with it.

`@pytest.mark.failure(...)` names what the test makes a job end with, on real parts: a
`FailureCode`, or the `Clock` that has run out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.failures import Clock, FailureCode

MARK = "pytest.mark.failure"
TESTS = sorted(Path(__file__).parent.rglob("test_*.py"))

Test = ast.FunctionDef | ast.AsyncFunctionDef


def marked_tests() -> Iterator[tuple[Test, str]]:
    """Yield each marked test with the source text of what it is marked with."""
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Test):
                yield from ((node, named) for named in marks_of(node))


def marks_of(test: Test) -> Iterator[str]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == MARK:
            yield from map(ast.unparse, decorator.args)


MARKED = list(marked_tests())


@pytest.mark.parametrize("entry", [*FailureCode, *Clock])
def test_each_is_made_to_happen(entry: FailureCode | Clock) -> None:
    name = f"{type(entry).__name__}.{entry.name}"
    assert name in {named for _, named in MARKED}, f"no test is marked with {name}"


@pytest.mark.parametrize(("test", "named"), MARKED, ids=[f"{t.name}-{n}" for t, n in MARKED])
def test_a_marked_test_says_what_it_is_marked_with(test: Test, named: str) -> None:
    """What stands only in the mark is not checked by the test."""
    body = [node for statement in test.body for node in ast.walk(statement)]
    assert named in {ast.unparse(node) for node in body if isinstance(node, ast.Attribute)}
