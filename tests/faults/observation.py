"""What is seen of a job after a fault, and what must hold of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.e2e.processes import processes_of
from tests.faults.fault import Fault
from tests.faults.installation import Installation
from tests.faults.situations import EFFECTS, CodeSituation, Situation, TaskSituation
from tests.stack import OWNER, Json


@dataclass(frozen=True)
class Seen:
    """One job after a fault. `violations` is empty when everything held."""

    status: str
    failure: str | None
    runs: int
    commits: int
    pull_requests: int
    lost: int
    doubled: int
    violations: tuple[str, ...]

    def with_violation(self, violation: str) -> Seen:
        return replace(self, violations=(*self.violations, violation))


def observe(situation: Situation, fault: Fault) -> Seen:
    """Look at a job that has come to its end after a fault."""
    job = situation.stack.job(situation.job_id)
    lines = situation.stack.messages(situation.job_id)
    lost, doubled = _mail(situation, job)
    violations = [
        *_wrong_end(job, fault.allows(situation), fault.failure),
        *_wrong_transcript(lines),
        *_left_behind(situation),
        *_wrong_steps(situation, job, fault),
        *_wrong_publication(situation, job),
        *_wrong_mail(situation, job, lines),
    ]
    return Seen(
        status=job["status"],
        failure=job["failure_code"],
        runs=_runs(lines),
        commits=len(_subjects(situation)),
        pull_requests=len(situation.stack.github.pull_requests(OWNER, situation.repository)),
        lost=lost,
        doubled=doubled,
        violations=tuple(violations),
    )


def worktrees(place: Installation) -> Iterator[Path]:
    """Yield the worktrees that are on the disk, on any host."""
    root = place.stack.root
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


def _left_behind(situation: Situation) -> Iterator[str]:
    if left := processes_of(situation.job_id):
        yield f"{len(left)} processes left"
    if git := situation.stack.pids(f"{situation.repository}.git"):
        yield f"{len(git)} git commands left"
    if situation.job_id in [path.name for path in worktrees(situation.place)]:
        yield "worktree left"
    if situation.job_id in json.dumps(situation.stack.call("GET", "/queue")):
        yield "still in the queue"


def _wrong_steps(situation: Situation, job: Json, fault: Fault) -> Iterator[str]:
    """Each finished step of Claude's has happened once, unless its session was lost."""
    if fault.forgets:
        return
    if situation.branch not in situation.stack.github.branches(OWNER, situation.repository):
        return
    done = situation.stack.github.read_file(
        OWNER, situation.repository, situation.branch, EFFECTS
    ).split()
    wanted = ["one", "two"]
    if len(done) > len(set(done)):
        yield f"steps repeated: {done}"
    if job["status"] == "completed" and isinstance(situation, CodeSituation) and done != wanted:
        yield f"steps done: {done}"


def _subjects(situation: Situation) -> list[str]:
    github = situation.stack.github
    if situation.branch not in github.branches(OWNER, situation.repository):
        return []
    log = github.log(OWNER, situation.repository, situation.branch)
    return [entry.subject for entry in log]


def _wrong_publication(situation: Situation, job: Json) -> Iterator[str]:
    pulls = situation.stack.github.pull_requests(OWNER, situation.repository)
    states = [pull.state for pull in pulls]
    subjects = _subjects(situation)
    if not isinstance(situation, CodeSituation):
        if states or subjects:
            yield f"a task published: {states} {subjects}"
    elif job["status"] == "completed":
        if states != ["open"]:
            yield f"pull requests: {states}"
        if subjects != situation.history:
            yield f"commits: {subjects}"
    elif job["status"] == "cancelled" and ("open" in states or subjects):
        yield f"still published: {states} {subjects}"
    elif len(states) > 1 or (subjects and subjects != situation.history):
        yield f"half published: {states} {subjects}"


def _heard(situation: Situation) -> list[str]:
    """The user's messages as the model has them in its last call, without merging."""
    asked = situation.asked()
    said = "\n".join(asked[-1].said) if asked else ""
    return [line for line in said.splitlines() if line.startswith("Message ")]


def _mail(situation: Situation, job: Json) -> tuple[int, int]:
    """How many accepted messages Claude has never got, and how many it has got twice.

    A conversation that ended otherwise than completed owes no answer any more.
    """
    if not isinstance(situation, TaskSituation) or job["status"] != "completed":
        return 0, 0
    heard = Counter(_heard(situation))
    lost = [text for text in situation.mail.accepted if not heard[text]]
    return len(lost), sum(count - 1 for count in heard.values())


def _wrong_mail(situation: Situation, job: Json, lines: list[Json]) -> Iterator[str]:
    if not isinstance(situation, TaskSituation):
        return
    heard, mail = _heard(situation), situation.mail
    if any(_mail(situation, job)):
        yield f"accepted {mail.accepted}, heard {heard}"
    if set(heard) & set(mail.refused):
        yield f"heard what was refused: {mail.refused}"
    kept = [line["content"] for line in lines if line["type"] == "user_input"]
    if job["status"] == "completed" and kept != heard:
        yield f"heard {heard}, transcript {kept}"


def _runs(lines: list[Json]) -> int:
    """How many processes of Claude have begun."""
    events = [json.loads(line["content"]) for line in lines if line["type"] == "stdout"]
    return sum((event.get("type"), event.get("subtype")) == ("system", "init") for event in events)
