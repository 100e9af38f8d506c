"""What the phases are made of: a job, its script, and what was done with both."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import httpx

from fakes.anthropic.request import Conversation, read_conversation
from fakes.anthropic.steps import Step
from tests.e2e.steps import bash, say, wait_for_file, write
from tests.faults.installation import Installation
from tests.faults.mail import Mail
from tests.stack import OWNER, Json, eventually

FINAL = frozenset({"completed", "failed", "cancelled"})
CLAUDES_COMMIT = "Claude commits"
FIRST_COMMIT = "Initial commit"
EFFECTS = "effects.txt"
"""A file of the worktree to which each step of Claude's adds a line."""


class Situation:
    """A job that is brought into a phase and held there until it may go on.

    `expected` is the status in which it ends when a fault costs it nothing; it has that already
    when it `is_settled`.
    """

    phase: ClassVar[str]
    expected: ClassVar[str] = "completed"
    is_settled: ClassVar[bool] = False
    holds_slot: ClassVar[bool] = True

    def __init__(self, place: Installation) -> None:
        self.place = place
        self.stack = place.stack
        self.client, self.repository = self.stack.new_repository()
        self.branch = f"feature/{uuid.uuid4().hex[:8]}"
        self.title = f"Job that is {self.phase}"
        self.gate = place.gates / f"{self.repository}.open"
        self.script = self.stack.script(self.steps())
        self.script_name = self.script.removeprefix("[[script:").removesuffix("]]")
        self.job_id = ""
        self.asked_before = 0

    def steps(self) -> list[Step]:
        """Return what the model says."""
        raise NotImplementedError

    def bring(self) -> None:
        """Bring the job into the phase, and return when it is held there."""
        raise NotImplementedError

    def engage(self) -> None:
        """Begin what is to be in flight when the fault comes."""

    def is_held(self) -> bool:
        """Tell whether it still is in the phase; what waits for an answer does so for a while."""
        return True

    def go_on(self) -> None:
        """Let the job go on; the fault has come."""

    def finish(self) -> None:
        """Do what leads the job to its end, now that it goes on."""

    def is_going_on(self) -> bool:
        """Tell whether it goes on: Claude is asked again, or the job has come to its end."""
        return len(self.asked()) > self.asked_before or self.is_over()

    def is_over(self) -> bool:
        """Tell whether the job has ended and nothing is left to do for it."""
        job = self.look()
        return job is not None and job["status"] in FINAL and job["phase"] is None

    def has_ended(self) -> bool:
        """Tell whether the job has a final status."""
        job = self.look()
        return job is not None and job["status"] in FINAL

    def look(self) -> Json | None:
        """Return the job; None while the API does not answer."""
        return self.ask(f"/jobs/{self.job_id}")

    def ask(self, path: str) -> Json | None:
        """Return what the API answers; None while it does not."""
        try:
            answer = self.stack.http.get(path)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == httpx.codes.OK else None

    def asked(self) -> list[Conversation]:
        """Return the calls of the model so far."""
        return [
            read_conversation(request["body"], request["headers"])
            for request in self.stack.model.requests(self.script_name)
            if request["main"]
        ]

    def post(self, job_type: str) -> None:
        """Post the job."""
        body: dict[str, Any] = {"jobType": job_type, "title": self.title}
        if job_type == "code":
            body["branchName"] = self.branch
        self.job_id = self.stack.post_job(self.client, self.script, **body)

    def wait_for(self, phase: str) -> None:
        """Wait until the job is in a phase of the API."""
        self.stack.wait_for(self.job_id, phase, 90)


class CodeSituation(Situation):
    """A code job: a file, a commit of Claude's own, a wait, another file.

    It also leaves a process behind, in a session of its own.
    """

    @property
    def history(self) -> list[str]:
        """The subjects that the branch has in the end, newest first."""
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
            wait_for_file(self.gate),
            bash(f"echo two >> {EFFECTS} && echo b > b.txt"),
            say("Done."),
        ]

    def go_on(self) -> None:
        self.gate.touch()


class TaskSituation(Situation):
    """A conversation in which everything is answered with the same words."""

    def __init__(self, place: Installation) -> None:
        super().__init__(place)
        self.mail = Mail(self.stack, "")

    def steps(self) -> list[Step]:
        return [say("An answer.")]

    def bring(self) -> None:
        self.post("task")
        self.mail = Mail(self.stack, self.job_id)

    def hold_turn(self) -> None:
        """Let the model be asked for the first answer, and not give it."""
        self.hold = self.place.model.calls.hold(f"POST /v1/messages?* {self.job_id}")
        assert self.hold.arrived.wait(90), "the model is asked"

    def finish(self) -> None:
        """Complete the conversation, once it waits for the user."""
        eventually(self._is_waiting, 90, "it waits for the user, or is over")
        self.complete()

    def complete(self) -> None:
        """Ask for completion until it is granted, or the job has ended."""
        eventually(lambda: self._completes() or self.has_ended(), 60, "completed")

    def _completes(self) -> bool:
        try:
            return self.stack.http.post(f"/jobs/{self.job_id}/complete").status_code == 200
        except httpx.TransportError:
            return False

    def _is_waiting(self) -> bool:
        job = self.look()
        return job is not None and (job["phase"] == "waiting_for_user" or self.has_ended())
