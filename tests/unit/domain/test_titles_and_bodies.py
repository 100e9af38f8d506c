"""The texts made of a job: subjects, commit messages, bodies of pull requests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from domain import pull_request_text
from domain.commit_text import MAX_SUBJECT_CHARACTERS, commit_message, subject
from domain.jobs import Job
from domain.pull_request_text import MAX_BODY_CHARACTERS, job_mark

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
JOB_ID = "9b2f7a0c-5a07-4f5e-9d0e-3f6f5a0b1c2d"
MARK = f"\n\n---\n\nMade by Claude Code. Job: `{JOB_ID}`\n"


def a_job(**values: Any) -> Job:
    defaults: dict[str, Any] = {
        "id": JOB_ID,
        "client_id": "c",
        "repository_id": "r",
        "prompt": "Add a login page",
        "branch_name": "feature/x",
        "created_at": MOMENT,
        "queued_at": MOMENT,
        "updated_at": MOMENT,
    }
    return Job(**defaults | values)


class TestSubjects:
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
    def test_one_short_line(self, values: dict[str, Any], expected: str) -> None:
        line = subject(a_job(**values))
        assert line == expected
        assert len(line) <= MAX_SUBJECT_CHARACTERS
        assert len(line.splitlines()) == 1

    def test_a_commit_message_names_the_job(self) -> None:
        assert commit_message(a_job()) == f"Add a login page\n\nJob: {JOB_ID}\n"


class TestBodies:
    def test_what_was_done_and_what_was_asked(self) -> None:
        job = a_job(prompt="Add a page.\n\nWith tests. ", result=" Added it.\n")
        assert pull_request_text.body(job) == (
            "## What was done\n\nAdded it.\n\n"
            "## What was asked\n\n> Add a page.\n> \n> With tests." + MARK
        )

    @pytest.mark.parametrize("result", [None, "", " \n"])
    def test_nothing_was_said(self, result: str | None) -> None:
        body = pull_request_text.body(a_job(result=result))
        assert body.startswith("## What was done\n\nClaude left no description.\n\n")

    @pytest.mark.parametrize(
        "values",
        [
            {"prompt": "x" * 1_000_000},
            {"result": "y" * 1_000_000},
            {"prompt": "🚀\n" * 500_000, "result": "🚀" * 500_000},
            {"prompt": "\n" * 1_000_000 + "x"},
        ],
    )
    def test_what_is_too_long_is_cut_before_the_mark(self, values: dict[str, str]) -> None:
        body = pull_request_text.body(a_job(**values))
        assert len(body) <= MAX_BODY_CHARACTERS
        assert body.endswith(MARK)
        assert body.count(job_mark(JOB_ID)) == 1

    @pytest.mark.parametrize("excess", range(-3, 4))
    def test_around_the_limit(self, excess: int) -> None:
        rest = len(pull_request_text.body(a_job(result="y"))) - 1
        body = pull_request_text.body(a_job(result="y" * (MAX_BODY_CHARACTERS - rest + excess)))
        assert len(body) == MAX_BODY_CHARACTERS + min(0, excess)
        assert body.endswith(MARK)
