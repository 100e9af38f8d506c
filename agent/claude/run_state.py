"""What a Claude process has said so far that the verdict on it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.claude.events import (
    ApiRetry,
    AssistantError,
    MessageTaken,
    SessionStarted,
    SessionState,
    TurnEnded,
)
from agent.process.lines import OutputLine
from domain.errors import JobFailure

_REFUSED = frozenset({401, 403})
_STDERR_TAIL_CHARACTERS = 4000


@dataclass(slots=True)
class RunState:
    """Filled line by line; `error` is the last turn's, `turn_open` means one without a result.

    `refusals` counts how often in a row the API has refused the credential for one model call.
    `stopped_for` is set when the process is ended from here, in the middle of a turn.
    """

    started: SessionStarted | None = None
    results: list[TurnEnded] = field(default_factory=list)
    error: AssistantError | None = None
    refusals: int = 0
    stopped_for: JobFailure | None = None
    stderr_tail: str = ""
    turn_open: bool = False
    idle: bool = False

    def add(self, line: OutputLine) -> None:
        """Take in one line."""
        if line.stream == "stderr":
            self.stderr_tail = f"{self.stderr_tail}{line.text}\n"[-_STDERR_TAIL_CHARACTERS:]
            return
        match line.event:
            case SessionStarted() as started:
                self.started, self.error, self.turn_open = started, None, True
            case MessageTaken(state="started") | SessionState(state="running"):
                self.turn_open = True
            case SessionState(state="idle"):
                self.idle, self.turn_open = True, False
            case ApiRetry(status=status, attempt=attempt):
                before = self.refusals if attempt > 1 else 0
                self.refusals = before + 1 if status in _REFUSED else 0
            case AssistantError() as error:
                self.error = error
            case TurnEnded() as result:
                self.results.append(result)
                self.turn_open = False

    @property
    def is_between_turns(self) -> bool:
        """Whether the CLI has nothing to do.

        It may be idle without any result: it passes over a message whose id its transcript has
        (measured).
        """
        return not self.turn_open and (bool(self.results) or self.idle)

    @property
    def last(self) -> TurnEnded | None:
        """The last turn's result, unless a turn after it has none."""
        return self.results[-1] if self.results and not self.turn_open else None
