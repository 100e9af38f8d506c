"""Which messages were sent to a process, and which it has taken up."""

from __future__ import annotations

import asyncio

from agent.claude.events import Event, MessageTaken, SessionStarted, TurnEnded
from agent.message_queue import UserMessage, settle

_DONE = frozenset({"completed", "cancelled"})


class MessageTracker:
    """Follows every sent message through the CLI's acknowledgements.

    A message sent during a turn is `started` either within that turn, at its next tool result, or
    as the start of the next one, several merged into one; `completed` comes with the end of the
    turn, before or after its `result` (measured).
    """

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Future[bool] | None] = {}
        self._states: dict[str, str] = {}
        self._began = False

    @property
    def sent_ids(self) -> list[str]:
        """Ids of all messages, in the order of their sending."""
        return list(self._states)

    @property
    def completed(self) -> list[str]:
        """Ids of the messages whose turn is over."""
        return [message_id for message_id, state in self._states.items() if state == "completed"]

    @property
    def started(self) -> list[str]:
        """Ids of the messages that were taken up, and whose turn is not over.

        The CLI says so up to 50 ms before the transcript has them (measured), so after a crash
        the transcript decides.
        """
        return [message_id for message_id, state in self._states.items() if state == "started"]

    @property
    def is_done(self) -> bool:
        """Whether nothing that was sent is still to be dealt with."""
        return not self._open

    def sent(self, message: UserMessage, answer: asyncio.Future[bool] | None) -> None:
        """Note a message before it is written."""
        self._open[message.id] = answer
        self._states[message.id] = "sent"

    def failed(self, message_id: str) -> None:
        """Note that a message could not be written."""
        settle(self._open.pop(message_id, None), accepted=False)

    def note(self, event: Event) -> None:
        """Take in what the CLI says about a message."""
        match event:
            case MessageTaken(uuid=message_id, state=state) if message_id in self._open:
                self._acknowledged(message_id, state)
            case SessionStarted():
                self._began = True
            case TurnEnded() if self._began and not self._is_acknowledging:
                for message_id in list(self._open):
                    self._acknowledged(message_id, "completed")

    @property
    def _is_acknowledging(self) -> bool:
        """Whether this CLI acknowledges messages at all; older ones do not."""
        return any(state != "sent" for state in self._states.values())

    def _acknowledged(self, message_id: str, state: str) -> None:
        self._states[message_id] = state
        settle(self._open[message_id], accepted=state != "cancelled")
        if state in _DONE:
            del self._open[message_id]

    def fail_rest(self) -> None:
        """Answer what the process left unanswered when it ended."""
        for message_id in list(self._open):
            self.failed(message_id)
