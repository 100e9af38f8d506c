"""The subjects and messages of commits."""

from __future__ import annotations

from typing import Any

import pytest

from domain.commit_text import MAX_SUBJECT_CHARACTERS, commit_message, subject
from tests.unit.domain.samples import JOB_ID, a_job


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "Add a login page"),
        ({"title": "Login"}, "Login"),
        ({"title": "  Login \n page\t!"}, "Login page !"),
        ({"prompt": "\n\n  First line \nsecond"}, "First line"),
        ({"prompt": "First\r\nsecond"}, "First"),
        ({"prompt": "First\u2028second"}, "First"),
        ({"prompt": "\n \n"}, "Changes on feature/x"),
        ({"title": None, "prompt": ""}, "Changes on feature/x"),
        ({"title": "\n", "prompt": "unused"}, "Changes on feature/x"),
        ({"title": "x" * 72}, "x" * 72),
        ({"title": "x" * 73}, "x" * 71 + "…"),
        ({"title": "🚀" * 500}, "🚀" * 71 + "…"),
        ({"title": "x" * 70 + " yz"}, "x" * 70 + "…"),
        ({"prompt": "y" * 1_000_000}, "y" * 71 + "…"),
    ],
)
def test_the_subject_is_one_short_line(values: dict[str, Any], expected: str) -> None:
    line = subject(a_job(**values))
    assert line == expected
    assert len(line) <= MAX_SUBJECT_CHARACTERS
    assert len(line.splitlines()) == 1


def test_a_commit_message_names_the_job() -> None:
    assert commit_message(a_job()) == f"Add a login page\n\nJob: {JOB_ID}\n"
