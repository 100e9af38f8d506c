"""The phases in which a fault can find a job, and how a job is brought into each."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx

from fakes.anthropic.steps import Step
from tests.e2e.processes import commands_of
from tests.e2e.steps import python, say, write
from tests.faults.situations import CodeSituation, Situation, TaskSituation
from tests.stack import eventually


class Queued(CodeSituation):
    """Every slot is taken; bring it last."""

    phase = "queued"
    holds_slot = False

    def bring(self) -> None:
        self.gate.touch()
        self.post("code")
        self.wait_for("waiting_for_slot")


class Preparing(CodeSituation):
    """The fetch has asked the fake GitHub and waits for its answer."""

    phase = "preparing"
    pattern = "GET {git}/info/refs?service=git-upload-pack"
    after = False

    def bring(self) -> None:
        self.gate.touch()
        pattern = self.pattern.format(git=self.git_path)
        self.hold = self.place.requests.hold(pattern, after=self.after)
        self.post("code")
        assert self.hold.arrived.wait(60)

    def go_on(self) -> None:
        self.hold.release()


class Fetching(Preparing):
    """The fetch has asked for the objects, and the mirror is half made."""

    phase = "fetching"
    pattern = "POST {git}/git-upload-pack?"
    after = True


class AddingWorktree(CodeSituation):
    """Git is asked whether the commit has LFS files, just before the worktree is made."""

    phase = "adding worktree"

    def bring(self) -> None:
        self.gate.touch()
        self.hold = self.place.git.hold(
            f"{self.repository}.git", "grep -q -F filter=lfs", after=True
        )
        self.post("code")
        eventually(lambda: self.hold.pid, 60, "the worktree is about to be made")

    def go_on(self) -> None:
        self.hold.release()


class Working(CodeSituation):
    """Claude has committed and runs a command."""

    phase = "working"

    def bring(self) -> None:
        self.post("code")
        eventually(lambda: len(self.asked()) >= 3, 90, "the third step is taken")
        self.wait_for("working")
        eventually(self._is_in_command, 30, "the command runs")

    def _is_in_command(self) -> bool:
        return bool(commands_of(self.job_id, str(self.gate)))


class WaitingForUser(TaskSituation):
    """Claude has answered; no process and no slot is held."""

    phase = "waiting for user"
    holds_slot = False

    def bring(self) -> None:
        super().bring()
        self.wait_for("waiting_for_user")

    def go_on(self) -> None:
        self.mail.start_insisting()

    def finish(self) -> None:
        self.mail.wait()
        super().finish()


class MessageInFlight(TaskSituation):
    """Three messages are sent one after the other; the first has been accepted."""

    phase = "message in flight"

    def bring(self) -> None:
        super().bring()
        self.hold_turn()

    def engage(self) -> None:
        self.mail.start_sending(3)
        eventually(self._is_accepted, 20, "the first message is in the transcript")

    def go_on(self) -> None:
        self.hold.release()

    def finish(self) -> None:
        self.mail.wait()
        super().finish()

    def _is_accepted(self) -> bool:
        return "user_input" in [line["type"] for line in self.stack.messages(self.job_id)]


class CompleteInFlight(TaskSituation):
    """POST complete has been sent while Claude works."""

    phase = "complete in flight"

    def bring(self) -> None:
        super().bring()
        self.hold_turn()

    def engage(self) -> None:
        self.request = _send(self._completes)

    def go_on(self) -> None:
        self.hold.release()

    def finish(self) -> None:
        self.request.join(60)
        self.complete()


class CancelInFlight(CodeSituation):
    """The job is cancelled, and its command resists being stopped."""

    phase = "cancel in flight"
    expected = "cancelled"
    is_settled = True

    def steps(self) -> list[Step]:
        stubborn = python(
            "import pathlib, signal, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            f"time.sleep(600), {str(self.gate)!r}\n"
        )
        return [write("a.txt", "a\n"), stubborn, say("Done.")]

    def bring(self) -> None:
        self.post("code")
        eventually(lambda: commands_of(self.job_id, str(self.gate)), 90, "the command runs")

    def engage(self) -> None:
        self.request = _send(self._cancel)
        eventually(lambda: self.stack.job(self.job_id)["status"] == "cancelled", 20, "cancelled")

    def finish(self) -> None:
        self.request.join(60)

    def _cancel(self) -> None:
        try:
            self.stack.http.post(f"/jobs/{self.job_id}/cancel")
        except httpx.TransportError:
            return


class Publishing(CodeSituation):
    """A request of the publishing is held at the fake GitHub."""

    pattern: str
    after = False

    def bring(self) -> None:
        self.gate.touch()
        pattern = self.pattern.format(git=self.git_path, pulls=self.pulls_path)
        self.hold = self.place.requests.hold(pattern, after=self.after)
        self.post("code")
        assert self.hold.arrived.wait(90)

    def is_held(self) -> bool:
        return self.hold.is_held

    def go_on(self) -> None:
        self.hold.release()

    def is_going_on(self) -> bool:
        return self.is_over()


class BeforePush(Publishing):
    phase = "before the push"
    pattern = "GET {git}/info/refs?service=git-receive-pack"


class InPush(Publishing):
    """The objects have been sent; the refs are not updated."""

    phase = "in the push"
    pattern = "POST {git}/git-receive-pack?"


class AfterPush(Publishing):
    """The refs are updated; the push has not been told."""

    phase = "after the push"
    pattern = "POST {git}/git-receive-pack?"
    after = True


class BeforePullRequest(Publishing):
    phase = "before the pull request"
    pattern = "POST {pulls}?"


class AfterPullRequest(Publishing):
    """The pull request exists; the worker has not been told."""

    phase = "after the pull request"
    pattern = "POST {pulls}?"
    after = True


class CleaningUp(CodeSituation):
    """The job is completed, and its worktree is about to be removed."""

    phase = "cleaning up"
    is_settled = True

    def bring(self) -> None:
        self.gate.touch()
        asked = "rev-parse --quiet --verify refs/orchestrator/salvage/"
        self.hold = self.place.git.hold(f"{self.repository}.git", asked)
        self.post("code")
        eventually(lambda: self.hold.pid, 90, "the removal is held")

    def go_on(self) -> None:
        self.hold.release()

    def is_going_on(self) -> bool:
        return self.is_over()


class Completed(CodeSituation):
    """Everything is done; for faults that can still do something to it."""

    phase = "completed"
    is_settled = True
    holds_slot = False

    def bring(self) -> None:
        self.gate.touch()
        self.post("code")
        eventually(self.is_over, 90, "it is over")


PHASES: tuple[type[Situation], ...] = (
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
"""In the order of bringing: some can be held for a few seconds only, and the last one needs all
slots to be taken."""


def _send(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread
