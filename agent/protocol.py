"""The seam for another coding CLI: everything that a turn needs from a running agent.

How an agent is started depends on its CLI, so it is not part of the protocol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Protocol

from agent.process.lines import StreamName
from domain.errors import JobFailure
from domain.jobs import Usage


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The agent has started a turn."""


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The agent has finished a turn."""


@dataclass(frozen=True, slots=True)
class MessageAcknowledged:
    """The agent reported the state of a user message.

    `state` is `queued`, `started`, `completed` or `cancelled`. `started` means that the message is
    part of the conversation and will survive a crash.
    """

    message_id: str
    state: str


AgentEvent = TurnStarted | TurnEnded | MessageAcknowledged


@dataclass(frozen=True, slots=True)
class AgentLine:
    """One line of an agent's output, without its newline.

    `event` is None for a line that a turn does not react to. `shows_progress` is False for a
    heartbeat, which an agent also sends while it is stuck. `is_stored` is False for a line that
    does not belong in the job's messages.
    """

    stream: StreamName
    text: str
    event: AgentEvent | None = None
    shows_progress: bool = True
    is_stored: bool = True


@dataclass(frozen=True, slots=True)
class AgentResult:
    """The outcome of one agent process.

    `answer` is the text of the last turn, at most 64 KiB. `failure` is None if the last turn
    succeeded. `limit_type` names the usage limit that was reached, if the API named it.
    """

    usage: Usage
    answer: str | None
    session_id: str | None
    model: str | None
    failure: JobFailure | None
    limit_type: str | None = None


class CodingAgent(Protocol):
    """A running process of a coding CLI.

    Any task of the event loop may call the methods. Only one task at a time may read `output`.
    """

    @property
    def pid(self) -> int:
        """The root of the process tree whose CPU time counts as activity."""

    @property
    def is_between_turns(self) -> bool:
        """Whether the agent has finished a turn and has nothing to do."""

    @property
    def hopeless(self) -> JobFailure | None:
        """Why the agent cannot finish its turn although it is still running; normally None."""

    def output(self) -> AsyncIterator[AgentLine]:
        """Iterate over the lines of both streams until both have ended."""

    async def send(self, message_id: str, text: str) -> bool:
        """Write a user message; return whether the process can still read it.

        Args:
            message_id: a UUID; `MessageAcknowledged` and `known_messages` refer to it.
            text: reaches the model unchanged.
        """

    def close_input(self) -> None:
        """Announce that no message follows: the agent exits after its turn. Idempotent."""

    async def wait(self) -> int:
        """Return the exit code when no process of the run is left."""

    async def stop(self) -> None:
        """Stop the agent and everything it started; return when all are gone. Idempotent."""

    async def session_file(self) -> bytes | None:
        """Read the saved conversation; None if there is none."""

    async def known_messages(self, session_file: bytes, message_ids: Collection[str]) -> set[str]:
        """Return which of the messages the saved conversation contains."""

    async def result(
        self, exit_code: int, stopped_for: JobFailure | None, session_file: bytes
    ) -> AgentResult:
        """Return the outcome of a process that has ended.

        Args:
            exit_code: as returned by `wait`.
            stopped_for: why the turn stopped the process before its end; None if it did not.
            session_file: its content after the end.
        """
