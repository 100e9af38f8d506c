"""The bodies of pull requests."""

from __future__ import annotations

import pytest

from domain import pull_request_text
from domain.pull_request_text import MAX_BODY_CHARACTERS, job_mark
from tests.unit.domain.samples import JOB_ID, a_job

MARK = f"\n\n---\n\nMade by Claude Code. Job: `{JOB_ID}`\n"


def test_the_body_has_the_result_and_the_prompt() -> None:
    job = a_job(prompt="Add a page.\n\nWith tests. ", result=" Added it.\n")
    assert pull_request_text.body(job) == (
        "## What was done\n\nAdded it.\n\n"
        "## What was asked\n\n> Add a page.\n> \n> With tests." + MARK
    )


@pytest.mark.parametrize("result", [None, "", " \n"])
def test_a_job_without_a_result(result: str | None) -> None:
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
def test_a_long_body_is_cut_before_the_mark(values: dict[str, str]) -> None:
    body = pull_request_text.body(a_job(**values))
    assert len(body) <= MAX_BODY_CHARACTERS
    assert body.endswith(MARK)
    assert body.count(job_mark(JOB_ID)) == 1


@pytest.mark.parametrize("excess", range(-3, 4))
def test_the_length_around_the_limit(excess: int) -> None:
    rest = len(pull_request_text.body(a_job(result="y"))) - 1
    body = pull_request_text.body(a_job(result="y" * (MAX_BODY_CHARACTERS - rest + excess)))
    assert len(body) == MAX_BODY_CHARACTERS + min(0, excess)
    assert body.endswith(MARK)
