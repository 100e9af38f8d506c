"""docs/failures.md is generated from domain/failures.py."""

from __future__ import annotations

from pathlib import Path

from domain.failures import FailureCode, TimeLimit
from tools.failure_page import failure_page

PAGE = Path(__file__).parents[3] / "docs" / "failures.md"


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text() == failure_page(), "docs/failures.md is out of date. Run make docs"


def test_every_entry_has_one_line() -> None:
    lines = failure_page().splitlines()
    assert [entry for entry in [*FailureCode, *TimeLimit] if lines.count(line_of(entry)) != 1] == []


def line_of(entry: FailureCode | TimeLimit) -> str:
    retryable = "yes" if entry.retryable else "no"
    return f"| `{entry}` | {entry.meaning} | {entry.remedy} | {retryable} |"
