"""docs/failures.md says what domain/failures.py says."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.failure_page import failure_page
from domain.failures import Clock, FailureCode

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == failure_page(), "docs/failures.md is stale. Renew it: make docs"


@pytest.mark.parametrize("entry", [*FailureCode, *Clock])
def test_every_entry_has_its_line(entry: FailureCode | Clock) -> None:
    retryable = "yes" if entry.retryable else "no"
    line = f"| `{entry}` | {entry.meaning} | {entry.remedy} | {retryable} |"
    assert failure_page().splitlines().count(line) == 1
