"""The state of every message that was sent to a process."""

from __future__ import annotations

import asyncio

from agent.message_queue import UserMessage, resolve
from agent.protocol import AgentEvent, MessageAcknowledged, TurnEnded, TurnStarted

_FINAL = frozenset({"completed", "cancelled"})


class MessageTracker:
    """Follows each sent message through the CLI's acknowledgements.

    A message sent during a turn is `started` at the next tool result of that turn, or at the
    start of the next turn; several messages may then be merged into one. `completed` arrives with
    the end of the turn, before or after its `result` (measured).
    """

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Future[bool] | None] = {}
        self._states: dict[str, str] = {}
        self._turn_started = False

    @property
    def sent_ids(self) -> list[str]:
        """Ids of all messages in the order they were sent."""
        return list(self._states)

    @property
    def completed(self) -> list[str]:
        """Ids of the messages whose turn has ended."""
        return [message_id for message_id, state in self._states.items() if state == "completed"]

    @property
    def started(self) -> list[str]:
        """Ids of the messages in a turn that has not ended.

        The CLI reports this up to 50 ms before it writes its session file (measured), so after a
        crash the session file decides.
        """
        return [message_id for message_id, state in self._states.items() if state == "started"]

    @property
    def is_done(self) -> bool:
        """Whether every message has reached a final state."""
        return not self._pending

    def sent(self, message: UserMessage, accepted: asyncio.Future[bool] | None) -> None:
        """Register a message before it is written."""
        self._pending[message.id] = accepted
        self._states[message.id] = "sent"

    def failed(self, message_id: str) -> None:
        """Record that a message could not be written."""
        resolve(self._pending.pop(message_id, None), accepted=False)

    def observe(self, event: AgentEvent) -> None:
        """Apply an event of the process."""
        match event:
            case MessageAcknowledged(message_id=message_id, state=state):
                if message_id in self._pending:
                    self._acknowledge(message_id, state)
            case TurnStarted():
                self._turn_started = True
            case TurnEnded() if self._turn_started and not self._is_acknowledging:
                for message_id in list(self._pending):
                    self._acknowledge(message_id, "completed")

    def fail_rest(self) -> None:
        """Resolve every open message as not accepted, after the process has ended."""
        for message_id in list(self._pending):
            self.failed(message_id)

    @property
    def _is_acknowledging(self) -> bool:
        # Older CLIs do not acknowledge messages at all.
        return any(state != "sent" for state in self._states.values())

    def _acknowledge(self, message_id: str, state: str) -> None:
        self._states[message_id] = state
        resolve(self._pending[message_id], accepted=state != "cancelled")
        if state in _FINAL:
            del self._pending[message_id]
