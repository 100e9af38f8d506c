"""The state of a Claude process, derived from its output."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.claude.events import (
    ApiRetry,
    AssistantError,
    Event,
    Result,
    SessionStarted,
    SessionState,
)
from agent.protocol import MessageAcknowledged
from domain.errors import JobFailure

_REFUSED = frozenset({401, 403})
_STDERR_TAIL_CHARACTERS = 4000
"""Enough for the last lines of a stack trace."""


@dataclass(slots=True)
class RunState:
    """Updated line by line.

    `error` is the API error of the last turn. `refusals` counts how often in a row the API has
    refused the credential for one model call. `turn_open` is set while a turn has no result.
    `stopped_for` is the reason if the orchestrator stopped the process during a turn.
    """

    started: SessionStarted | None = None
    results: list[Result] = field(default_factory=list)
    error: AssistantError | None = None
    refusals: int = 0
    stopped_for: JobFailure | None = None
    stderr_tail: str = ""
    turn_open: bool = False
    idle: bool = False

    def add_stderr(self, text: str) -> None:
        """Append a line of standard error."""
        self.stderr_tail = f"{self.stderr_tail}{text}\n"[-_STDERR_TAIL_CHARACTERS:]

    def add(self, event: Event) -> None:
        """Apply an event of standard output."""
        match event:
            case SessionStarted() as started:
                self.started, self.error, self.turn_open = started, None, True
            case MessageAcknowledged(state="started") | SessionState(state="running"):
                self.turn_open = True
            case SessionState(state="idle"):
                self.idle, self.turn_open = True, False
            case ApiRetry(status=status, attempt=attempt):
                before = self.refusals if attempt > 1 else 0
                self.refusals = before + 1 if status in _REFUSED else 0
            case AssistantError() as error:
                self.error = error
            case Result() as result:
                self.results.append(result)
                self.turn_open = False

    @property
    def is_between_turns(self) -> bool:
        """Whether the CLI has nothing to do."""
        # The CLI can be idle without any result: it skips a message whose id is in its session
        # file (measured).
        return not self.turn_open and (bool(self.results) or self.idle)

    @property
    def last(self) -> Result | None:
        """The result of the last turn; None if a later turn has no result."""
        return self.results[-1] if self.results and not self.turn_open else None
