"""Each clock ends a job with its own name. All are set to a minute, the least, and run at once."""

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
"""By so much the wait for a slot ends before the silence of the job that has the slot."""


@dataclass(frozen=True)
class Begun:
    """A job that a clock is going to end."""

    stack: Stack
    repository: str
    id: str

    def ended_by(self, clock: TimeLimit) -> Json:
        job = failed_as(self.stack, self.id, FailureCode.TIMED_OUT, clock, 180)
        assert job["error"] == clock.sentence
        assert_unpublished(self.stack, self.repository)
        return job


def begin(stack: Stack, **body: object) -> Begun:
    """Let Claude write a file and then wait for a model that never answers."""
    client, name = stack.new_repository()
    stack.github.delay_next(f"/{OWNER}/{name}.git/info/refs", FETCH_SECONDS)
    prompt = stack.script([write("a.txt", "a"), {"drop": "hang"}, say("Not reached.")])
    return Begun(stack, name, stack.post_job(client, prompt, **body))


def ask(stack: Stack) -> Begun:
    """Let Claude ask back."""
    client, name = stack.new_repository()
    job_id = stack.post_job(client, stack.script([say("Which one?")]), jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    return Begun(stack, name, job_id)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[TimeLimit, Begun]]:
    """A job for each clock; a turn that is limited would end before it is silent long enough."""
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
def test_a_turn_that_takes_too_long(begun: dict[TimeLimit, Begun]) -> None:
    job = begun[TimeLimit.TURN].ended_by(TimeLimit.TURN)
    assert 60 <= job["claude_seconds"] < 70
    assert kept_files(begun[TimeLimit.TURN].stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(FailureCode.TIMED_OUT, TimeLimit.JOB)
def test_a_job_that_holds_a_machine_too_long(begun: dict[TimeLimit, Begun]) -> None:
    job = begun[TimeLimit.JOB].ended_by(TimeLimit.JOB)
    assert job["failure_code"] == FailureCode.TIMED_OUT
    assert job["timeout_minutes"] == 1
    assert job["claude_seconds"] < 60
    assert kept_files(begun[TimeLimit.JOB].stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(TimeLimit.SILENCE)
def test_a_claude_that_is_silent_too_long(begun: dict[TimeLimit, Begun]) -> None:
    job = begun[TimeLimit.SILENCE].ended_by(TimeLimit.SILENCE)
    assert kept_files(begun[TimeLimit.SILENCE].stack, job["id"]) == {"a.txt"}


@pytest.mark.failure(TimeLimit.QUEUE)
def test_a_slot_that_does_not_come_free(begun: dict[TimeLimit, Begun]) -> None:
    job = begun[TimeLimit.QUEUE].ended_by(TimeLimit.QUEUE)
    assert job["started_at"] is None
    assert kept_files(begun[TimeLimit.QUEUE].stack, job["id"]) == set()


@pytest.mark.failure(TimeLimit.IDLE)
def test_a_user_who_does_not_answer(begun: dict[TimeLimit, Begun]) -> None:
    job = begun[TimeLimit.IDLE].ended_by(TimeLimit.IDLE)
    assert job["result"] == "Which one?"
    assert kept_files(begun[TimeLimit.IDLE].stack, job["id"]) == set()
