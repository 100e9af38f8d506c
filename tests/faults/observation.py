"""The outcome of a job after a fault, and the checks of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.e2e.processes import processes_of
from tests.faults.fault import Fault
from tests.faults.installation import Installation
from tests.faults.scenarios import EFFECTS, CodeScenario, Scenario, TaskScenario
from tests.stack import OWNER, Json


@dataclass(frozen=True)
class Outcome:
    """The outcome of one job. `violations` is empty if all checks passed."""

    status: str
    failure: str | None
    runs: int
    commits: int
    pull_requests: int
    lost: int
    doubled: int
    violations: tuple[str, ...]

    def with_violation(self, violation: str) -> Outcome:
        return replace(self, violations=(*self.violations, violation))


def observe(scenario: Scenario, fault: Fault) -> Outcome:
    """Check a job that has ended after a fault."""
    job = scenario.stack.job(scenario.job_id)
    lines = scenario.stack.messages(scenario.job_id)
    lost, doubled = _lost_and_doubled(scenario, job)
    violations = [
        *_wrong_end(job, fault.allows(scenario), fault.failure),
        *_wrong_transcript(lines),
        *_left_behind(scenario),
        *_wrong_steps(scenario, job, fault),
        *_wrong_publication(scenario, job),
        *_wrong_messages(scenario, job, lines),
    ]
    return Outcome(
        status=job["status"],
        failure=job["failure_code"],
        runs=_runs(lines),
        commits=len(_subjects(scenario)),
        pull_requests=len(scenario.stack.github.pull_requests(OWNER, scenario.repository)),
        lost=lost,
        doubled=doubled,
        violations=tuple(violations),
    )


def worktrees(installation: Installation) -> Iterator[Path]:
    """Yield the existing worktrees of all hosts."""
    root = installation.stack.root
    for directory in (*root.glob("worktrees"), *root.glob("*/worktrees")):
        yield from directory.glob("[!.]*/*/*[!.json]")


def _wrong_end(job: Json, expected: frozenset[str], failure: str | None) -> Iterator[str]:
    if job["status"] not in expected:
        yield f"{job['status']} instead of {'/'.join(sorted(expected))}: {job['error']}"
    if job["status"] == "failed" and job["failure_code"] != failure:
        yield f"failed because of {job['failure_code']} instead of {failure}"
    if job["phase"] is not None:
        yield f"still {job['phase']}"
    if job["status"] == "failed" and not job["error"]:
        yield "failed without a reason"


def _wrong_transcript(lines: list[Json]) -> Iterator[str]:
    numbers = [line["seq"] for line in lines]
    if numbers != list(range(1, len(lines) + 1)):
        yield f"transcript numbers {numbers}"
    if doubled := [key for key, count in Counter(_keys(lines)).items() if count > 1]:
        yield f"{len(doubled)} transcript lines twice"


def _keys(lines: list[Json]) -> Iterator[str]:
    for line in lines:
        yield line["id"]
        if line["type"] == "stdout" and (name := json.loads(line["content"]).get("uuid")):
            yield name


def _left_behind(scenario: Scenario) -> Iterator[str]:
    if left := processes_of(scenario.job_id):
        yield f"{len(left)} processes left"
    if git := scenario.stack.pids(f"{scenario.repository}.git"):
        yield f"{len(git)} git commands left"
    if scenario.job_id in [path.name for path in worktrees(scenario.installation)]:
        yield "worktree left"
    if scenario.job_id in json.dumps(scenario.stack.call("GET", "/queue")):
        yield "still in the queue"


def _wrong_steps(scenario: Scenario, job: Json, fault: Fault) -> Iterator[str]:
    """Check that each finished step of Claude happened once, unless its session was lost."""
    if fault.loses_session:
        return
    if scenario.branch not in scenario.stack.github.branches(OWNER, scenario.repository):
        return
    done = scenario.stack.github.read_file(
        OWNER, scenario.repository, scenario.branch, EFFECTS
    ).split()
    wanted = ["one", "two"]
    if len(done) > len(set(done)):
        yield f"steps repeated: {done}"
    if job["status"] == "completed" and isinstance(scenario, CodeScenario) and done != wanted:
        yield f"steps done: {done}"


def _subjects(scenario: Scenario) -> list[str]:
    github = scenario.stack.github
    if scenario.branch not in github.branches(OWNER, scenario.repository):
        return []
    log = github.log(OWNER, scenario.repository, scenario.branch)
    return [entry.subject for entry in log]


def _wrong_publication(scenario: Scenario, job: Json) -> Iterator[str]:
    pulls = scenario.stack.github.pull_requests(OWNER, scenario.repository)
    states = [pull.state for pull in pulls]
    subjects = _subjects(scenario)
    if not isinstance(scenario, CodeScenario):
        if states or subjects:
            yield f"a task published: {states} {subjects}"
    elif job["status"] == "completed":
        if states != ["open"]:
            yield f"pull requests: {states}"
        if subjects != scenario.history:
            yield f"commits: {subjects}"
    elif job["status"] == "cancelled" and ("open" in states or subjects):
        yield f"still published: {states} {subjects}"
    elif len(states) > 1 or (subjects and subjects != scenario.history):
        yield f"half published: {states} {subjects}"


def _received(scenario: Scenario) -> list[str]:
    """Return the user's messages in the last model call."""
    model_calls = scenario.model_calls()
    said = "\n".join(model_calls[-1].said) if model_calls else ""
    return [line for line in said.splitlines() if line.startswith("Message ")]


def _lost_and_doubled(scenario: Scenario, job: Json) -> tuple[int, int]:
    """Return the numbers of accepted messages that Claude never received, or received twice.

    Only a completed conversation must have answered all messages.
    """
    if not isinstance(scenario, TaskScenario) or job["status"] != "completed":
        return 0, 0
    received = Counter(_received(scenario))
    lost = [text for text in scenario.user_messages.accepted if not received[text]]
    return len(lost), sum(count - 1 for count in received.values())


def _wrong_messages(scenario: Scenario, job: Json, lines: list[Json]) -> Iterator[str]:
    if not isinstance(scenario, TaskScenario):
        return
    received, user_messages = _received(scenario), scenario.user_messages
    if any(_lost_and_doubled(scenario, job)):
        yield f"accepted {user_messages.accepted}, received {received}"
    if set(received) & set(user_messages.refused):
        yield f"received refused messages: {user_messages.refused}"
    kept = [line["content"] for line in lines if line["type"] == "user_input"]
    if job["status"] == "completed" and kept != received:
        yield f"received {received}, transcript {kept}"


def _runs(lines: list[Json]) -> int:
    """Return the number of Claude processes that started."""
    events = [json.loads(line["content"]) for line in lines if line["type"] == "stdout"]
    return sum((event.get("type"), event.get("subtype")) == ("system", "init") for event in events)
