"""Each time limit ends a job with its own name. All are one minute and run at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from domain.failures import FailureCode, TimeLimit
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.steps import say, write
from tests.stack import OWNER, Json, Stack, running_stack

pytestmark = pytest.mark.timeout(240)

FETCH_SECONDS = 10
"""The wait for a slot ends this many seconds before the silence of the job in the slot."""


@dataclass(frozen=True)
class StartedJob:
    """A job that a time limit will end."""

    stack: Stack
    repository: str
    id: str

    def ended_by(self, clock: TimeLimit) -> Json:
        job = failed_as(self.stack, self.id, FailureCode.TIMED_OUT, clock, 180)
        assert job["error"] == clock.sentence
        assert_unpublished(self.stack, self.repository)
        return job


def begin(stack: Stack, **body: object) -> StartedJob:
    """Let Claude write a file, then wait for a model that never answers."""
    client, name = stack.new_repository()
    stack.github.delay_next(f"/{OWNER}/{name}.git/info/refs", FETCH_SECONDS)
    prompt = stack.script([write("a.txt", "a"), {"drop": "hang"}, say("Not reached.")])
    return StartedJob(stack, name, stack.post_job(client, prompt, **body))


def ask(stack: Stack) -> StartedJob:
    """Let Claude ask a question."""
    client, name = stack.new_repository()
    job_id = stack.post_job(client, stack.script([say("Which one?")]), jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    return StartedJob(stack, name, job_id)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[TimeLimit, StartedJob]]:
    """Start a job for each time limit. The silent job has no turn limit."""
    root: Path = tmp_path_factory.mktemp("limits")
    with (
        running_stack(root / "turns", TURN_TIMEOUT_MINUTES="1") as turns,
        running_stack(
            root / "waits",
            MAX_CONCURRENT_JOBS="1",
            SILENCE_TIMEOUT_MINUTES="1",
            QUEUE_TIMEOUT_MINUTES="1",
            TASK_IDLE_TIMEOUT_MINUTES="1",
        ) as waits,
    ):
        yield {
            TimeLimit.TURN: begin(turns),
            TimeLimit.JOB: begin(turns, timeoutMinutes=1),
            TimeLimit.IDLE: ask(waits),
            TimeLimit.SILENCE: begin(waits),
            TimeLimit.QUEUE: begin(waits),
        }


@pytest.mark.failure(TimeLimit.TURN)
def test_a_turn_that_takes_too_long(started: dict[TimeLimit, StartedJob]) -> None:
    job = started[TimeLimit.TURN].ended_by(TimeLimit.TURN)
    assert 60 <= job["claude_seconds"] < 70
    assert kept_files(started[TimeLimit.TURN].stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(FailureCode.TIMED_OUT, TimeLimit.JOB)
def test_a_job_that_holds_a_host_too_long(started: dict[TimeLimit, StartedJob]) -> None:
    job = started[TimeLimit.JOB].ended_by(TimeLimit.JOB)
    assert job["failure_code"] == FailureCode.TIMED_OUT
    assert job["timeout_minutes"] == 1
    assert job["claude_seconds"] < 60
    assert kept_files(started[TimeLimit.JOB].stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(TimeLimit.SILENCE)
def test_claude_is_silent_too_long(started: dict[TimeLimit, StartedJob]) -> None:
    job = started[TimeLimit.SILENCE].ended_by(TimeLimit.SILENCE)
    assert kept_files(started[TimeLimit.SILENCE].stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(TimeLimit.QUEUE)
def test_no_slot_becomes_free(started: dict[TimeLimit, StartedJob]) -> None:
    job = started[TimeLimit.QUEUE].ended_by(TimeLimit.QUEUE)
    assert job["started_at"] is None
    assert kept_files(started[TimeLimit.QUEUE].stack, job["id"]) == set()


@pytest.mark.failure(TimeLimit.IDLE)
def test_a_user_who_does_not_answer(started: dict[TimeLimit, StartedJob]) -> None:
    job = started[TimeLimit.IDLE].ended_by(TimeLimit.IDLE)
    assert job["result"] == "Which one?"
    assert kept_files(started[TimeLimit.IDLE].stack, job["id"]) == set()
