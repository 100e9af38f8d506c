"""The phases in which a fault can happen, and how a job reaches each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx

from fakes.anthropic.steps import Step
from tests.e2e.processes import commands_of
from tests.e2e.steps import python, say, write
from tests.faults.scenarios import CodeScenario, Scenario, TaskScenario
from tests.stack import eventually


class Queued(CodeScenario):
    """All slots are in use; this must be the last job of a batch."""

    phase = "queued"
    holds_slot = False

    def reach_phase(self) -> None:
        self.signal_file.touch()
        self.post("code")
        self.wait_for("waiting_for_slot")


class Preparing(CodeScenario):
    """The fetch waits for the first answer of the fake GitHub."""

    phase = "preparing"
    pattern = "GET {git}/info/refs?service=git-upload-pack"
    after = False

    def reach_phase(self) -> None:
        self.signal_file.touch()
        pattern = self.pattern.format(git=self.git_path)
        self.hold = self.installation.requests.hold(pattern, after=self.after)
        self.post("code")
        assert self.hold.arrived.wait(60)

    def release(self) -> None:
        self.hold.release()


class Fetching(Preparing):
    """The fetch has requested the objects; the mirror is incomplete."""

    phase = "fetching"
    pattern = "POST {git}/git-upload-pack?"
    after = True


class AddingWorktree(CodeScenario):
    """Git checks for LFS files, just before the worktree is created."""

    phase = "adding worktree"

    def reach_phase(self) -> None:
        self.signal_file.touch()
        self.hold = self.installation.git.hold(
            f"{self.repository}.git", "grep -q -F filter=lfs", after=True
        )
        self.post("code")
        eventually(lambda: self.hold.pid, 60, "the worktree is about to be created")

    def release(self) -> None:
        self.hold.release()


class Working(CodeScenario):
    """Claude has committed and runs a command."""

    phase = "working"

    def reach_phase(self) -> None:
        self.post("code")
        eventually(lambda: len(self.model_calls()) >= 3, 90, "the third step runs")
        self.wait_for("working")
        eventually(self._is_in_command, 30, "the command runs")

    def _is_in_command(self) -> bool:
        return bool(commands_of(self.job_id, str(self.signal_file)))


class WaitingForUser(TaskScenario):
    """Claude has answered; the job has no process and no slot."""

    phase = "waiting for user"
    holds_slot = False

    def reach_phase(self) -> None:
        super().reach_phase()
        self.wait_for("waiting_for_user")

    def release(self) -> None:
        self.user_messages.start_until_accepted()

    def finish(self) -> None:
        self.user_messages.wait()
        super().finish()


class MessageInFlight(TaskScenario):
    """Three messages are sent one after the other; the first has been accepted."""

    phase = "message in flight"

    def reach_phase(self) -> None:
        super().reach_phase()
        self.hold_turn()

    def start_request(self) -> None:
        self.user_messages.start_sending(3)
        eventually(self._is_accepted, 20, "the first message is in the transcript")

    def release(self) -> None:
        self.hold.release()

    def finish(self) -> None:
        self.user_messages.wait()
        super().finish()

    def _is_accepted(self) -> bool:
        return "user_input" in [line["type"] for line in self.stack.messages(self.job_id)]


class CompleteInFlight(TaskScenario):
    """POST complete has been sent while Claude works."""

    phase = "complete in flight"

    def reach_phase(self) -> None:
        super().reach_phase()
        self.hold_turn()

    def start_request(self) -> None:
        self.request = _send(self._completes)

    def release(self) -> None:
        self.hold.release()

    def finish(self) -> None:
        self.request.join(60)
        self.complete()


class CancelInFlight(CodeScenario):
    """The job is cancelled, and its command resists being stopped."""

    phase = "cancel in flight"
    expected = "cancelled"
    is_settled = True

    def steps(self) -> list[Step]:
        stubborn = python(
            "import pathlib, signal, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            f"time.sleep(600), {str(self.signal_file)!r}\n"
        )
        return [write("a.txt", "a\n"), stubborn, say("Done.")]

    def reach_phase(self) -> None:
        self.post("code")
        eventually(lambda: commands_of(self.job_id, str(self.signal_file)), 90, "the command runs")

    def start_request(self) -> None:
        self.request = _send(self._cancel)
        eventually(lambda: self.stack.job(self.job_id)["status"] == "cancelled", 20, "cancelled")

    def finish(self) -> None:
        self.request.join(60)

    def _cancel(self) -> None:
        try:
            self.stack.http.post(f"/jobs/{self.job_id}/cancel")
        except httpx.TransportError:
            return


class Publishing(CodeScenario):
    """A request of the publication is held at the fake GitHub."""

    pattern: str
    after = False

    def reach_phase(self) -> None:
        self.signal_file.touch()
        pattern = self.pattern.format(git=self.git_path, pulls=self.pulls_path)
        self.hold = self.installation.requests.hold(pattern, after=self.after)
        self.post("code")
        assert self.hold.arrived.wait(90)

    def is_held(self) -> bool:
        return self.hold.is_held

    def release(self) -> None:
        self.hold.release()

    def has_continued(self) -> bool:
        return self.is_finished()


class BeforePush(Publishing):
    phase = "before the push"
    pattern = "GET {git}/info/refs?service=git-receive-pack"


class InPush(Publishing):
    """The objects have been sent; the refs are not updated."""

    phase = "in the push"
    pattern = "POST {git}/git-receive-pack?"


class AfterPush(Publishing):
    """The refs are updated; the push has no answer yet."""

    phase = "after the push"
    pattern = "POST {git}/git-receive-pack?"
    after = True


class BeforePullRequest(Publishing):
    phase = "before the pull request"
    pattern = "POST {pulls}?"


class AfterPullRequest(Publishing):
    """The pull request exists; the worker has no answer yet."""

    phase = "after the pull request"
    pattern = "POST {pulls}?"
    after = True


class CleaningUp(CodeScenario):
    """The job is completed, and its worktree is about to be removed."""

    phase = "cleaning up"
    is_settled = True

    def reach_phase(self) -> None:
        self.signal_file.touch()
        command = "rev-parse --quiet --verify refs/orchestrator/salvage/"
        self.hold = self.installation.git.hold(f"{self.repository}.git", command)
        self.post("code")
        eventually(lambda: self.hold.pid, 90, "the removal is held")

    def release(self) -> None:
        self.hold.release()

    def has_continued(self) -> bool:
        return self.is_finished()


class Completed(CodeScenario):
    """The job has ended; for faults that can still affect it."""

    phase = "completed"
    is_settled = True
    holds_slot = False

    def reach_phase(self) -> None:
        self.signal_file.touch()
        self.post("code")
        eventually(self.is_finished, 90, "it has ended")


PHASES: tuple[type[Scenario], ...] = (
    Working,
    WaitingForUser,
    CancelInFlight,
    Preparing,
    AddingWorktree,
    BeforePush,
    AfterPush,
    CleaningUp,
    MessageInFlight,
    CompleteInFlight,
    BeforePullRequest,
    AfterPullRequest,
    Queued,
)
"""In the order in which jobs are started. Late phases can be held only for a few seconds, and the
last one needs all slots in use."""


def _send(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread
