"""Base classes of the phases: a job, its script, and its user."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import httpx

from fakes.anthropic.request import Conversation, read_conversation
from fakes.anthropic.steps import Step
from tests.e2e.steps import bash, say, wait_for_file, write
from tests.faults.installation import Installation
from tests.faults.user_messages import UserMessages
from tests.stack import OWNER, Json, eventually

FINAL = frozenset({"completed", "failed", "cancelled"})
CLAUDES_COMMIT = "Claude commits"
FIRST_COMMIT = "Initial commit"
EFFECTS = "effects.txt"
"""A file in the worktree. Each step of Claude appends a line to it."""


class Scenario:
    """A job that is brought into a phase and held there until `release`.

    `expected` is the final status if the fault has no effect. If `is_settled`, the job already has
    this status in the phase.
    """

    phase: ClassVar[str]
    expected: ClassVar[str] = "completed"
    is_settled: ClassVar[bool] = False
    holds_slot: ClassVar[bool] = True

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.stack = installation.stack
        self.client, self.repository = self.stack.new_repository()
        self.branch = f"feature/{uuid.uuid4().hex[:8]}"
        self.title = f"Job that is {self.phase}"
        self.signal_file = installation.signal_files / f"{self.repository}.open"
        self.script = self.stack.script(self.steps())
        self.script_name = self.script.removeprefix("[[script:").removesuffix("]]")
        self.job_id = ""
        self.calls_before = 0

    def steps(self) -> list[Step]:
        """Return the script of the model."""
        raise NotImplementedError

    def reach_phase(self) -> None:
        """Bring the job into the phase, and return once it is held there."""
        raise NotImplementedError

    def start_request(self) -> None:
        """Start the request that is in flight when the fault happens."""

    def is_held(self) -> bool:
        """Return whether the job is still in the phase: some requests can be held only briefly."""
        return True

    def release(self) -> None:
        """Let the job continue after the fault."""

    def finish(self) -> None:
        """Do the remaining actions of the user, so that the job can end."""

    def has_continued(self) -> bool:
        """Return whether the job has continued: a new model call, or its end."""
        return len(self.model_calls()) > self.calls_before or self.is_finished()

    def is_finished(self) -> bool:
        """Return whether the job has ended, including its cleanup."""
        job = self.current_job()
        return job is not None and job["status"] in FINAL and job["phase"] is None

    def has_ended(self) -> bool:
        """Return whether the job has a final status."""
        job = self.current_job()
        return job is not None and job["status"] in FINAL

    def current_job(self) -> Json | None:
        """Return the job; None while the API does not answer."""
        return self.ask(f"/jobs/{self.job_id}")

    def ask(self, path: str) -> Json | None:
        """Return the answer of the API; None while it does not answer."""
        try:
            answer = self.stack.http.get(path)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == httpx.codes.OK else None

    def model_calls(self) -> list[Conversation]:
        """Return the model calls of this job."""
        return [
            read_conversation(request["body"], request["headers"])
            for request in self.stack.model.requests(self.script_name)
            if request["main"]
        ]

    def post(self, job_type: str) -> None:
        body: dict[str, Any] = {"jobType": job_type, "title": self.title}
        if job_type == "code":
            body["branchName"] = self.branch
        self.job_id = self.stack.post_job(self.client, self.script, **body)

    def wait_for(self, phase: str) -> None:
        """Wait until the API reports this phase."""
        self.stack.wait_for(self.job_id, phase, 90)


class CodeScenario(Scenario):
    """A code job that writes a file, commits, waits, and writes another file.

    It also leaves a process behind, in a separate session.
    """

    @property
    def history(self) -> list[str]:
        """The expected commit subjects of the branch, newest first."""
        return [self.title, CLAUDES_COMMIT, FIRST_COMMIT]

    @property
    def git_path(self) -> str:
        return f"/{OWNER}/{self.repository}.git"

    @property
    def pulls_path(self) -> str:
        return f"/api/repos/{OWNER}/{self.repository}/pulls"

    def steps(self) -> list[Step]:
        return [
            write("a.txt", "a\n"),
            bash(
                f"echo one >> {EFFECTS} && git add -A && git commit -qm '{CLAUDES_COMMIT}' && "
                "setsid --fork sleep 600"
            ),
            wait_for_file(self.signal_file),
            bash(f"echo two >> {EFFECTS} && echo b > b.txt"),
            say("Done."),
        ]

    def release(self) -> None:
        self.signal_file.touch()


class TaskScenario(Scenario):
    """A conversation with the same answer to every message."""

    def __init__(self, installation: Installation) -> None:
        super().__init__(installation)
        self.user_messages = UserMessages(self.stack, "")

    def steps(self) -> list[Step]:
        return [say("An answer.")]

    def reach_phase(self) -> None:
        self.post("task")
        self.user_messages = UserMessages(self.stack, self.job_id)

    def hold_turn(self) -> None:
        """Hold the first model call."""
        self.hold = self.installation.model.calls.hold(f"POST /v1/messages?* {self.job_id}")
        assert self.hold.arrived.wait(90), "the model is called"

    def finish(self) -> None:
        """Complete the conversation once it waits for the user."""
        eventually(self._is_waiting, 90, "it waits for the user, or has ended")
        self.complete()

    def complete(self) -> None:
        """Request completion until it succeeds or the job has ended."""
        eventually(lambda: self._completes() or self.has_ended(), 60, "completed")

    def _completes(self) -> bool:
        try:
            return self.stack.http.post(f"/jobs/{self.job_id}/complete").status_code == 200
        except httpx.TransportError:
            return False

    def _is_waiting(self) -> bool:
        job = self.current_job()
        return job is not None and (job["phase"] == "waiting_for_user" or self.has_ended())
