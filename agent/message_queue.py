"""Messages for a running turn."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A message of the user; `id` is a UUID."""

    id: str
    text: str


QueuedMessage = tuple[UserMessage, "asyncio.Future[bool]"]


class MessageQueue:
    """Passes messages to a running turn; for use within one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[QueuedMessage] = deque()
        self._accepted: dict[str, asyncio.Future[bool]] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def offer(self, message: UserMessage) -> asyncio.Future[bool]:
        """Offer a message to the running process. Idempotent per message id.

        The future is True once the process has acknowledged the message. The turn then does not
        end before it has handled the message, unless the process dies; the `consumed` field of the
        report shows that. The future is False if the message belongs to the next turn.
        """
        if message.id not in self._accepted:
            accepted = asyncio.get_running_loop().create_future()
            self._accepted[message.id] = accepted
            if self._closed:
                accepted.set_result(False)
            else:
                self._waiting.append((message, accepted))
                self._changed.set()
        # A caller that is cancelled must not cancel the future of the other callers.
        return asyncio.shield(self._accepted[message.id])

    def close(self) -> None:
        """Reject every waiting and every later message. Idempotent."""
        self._closed = True
        while self._waiting:
            resolve(self._waiting.popleft()[1], accepted=False)
        self._changed.set()

    @property
    def is_empty(self) -> bool:
        """Whether no message is waiting."""
        return not self._waiting

    async def get(self) -> QueuedMessage | None:
        """Wait for the next message; None once the queue is closed."""
        while not self._waiting:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


def resolve(future: asyncio.Future[bool] | None, *, accepted: bool) -> None:
    """Set the result of a future that is neither done nor cancelled."""
    if future is not None and not future.done():
        future.set_result(accepted)
