"""Messages for a process that is running already."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A message of the user; `id` is a UUID."""

    id: str
    text: str


Offer = tuple[UserMessage, "asyncio.Future[bool]"]


class MessageQueue:
    """Where others leave messages for a running turn; for use within one event loop."""

    def __init__(self) -> None:
        self._offers: deque[Offer] = deque()
        self._answers: dict[str, asyncio.Future[bool]] = {}
        self._news = asyncio.Event()
        self._closed = False

    def offer(self, message: UserMessage) -> asyncio.Future[bool]:
        """Offer a message to the running process.

        The future is True once the process has acknowledged it: the turn does not end before it
        was taken up, unless the process dies, which the report's `consumed` shows. It is False when
        the message came too late and belongs to the next turn. Offering a message again is no
        second delivery, and gives the first one's answer.
        """
        if message.id not in self._answers:
            answer = asyncio.get_running_loop().create_future()
            self._answers[message.id] = answer
            if self._closed:
                answer.set_result(False)
            else:
                self._offers.append((message, answer))
                self._news.set()
        # A caller that gives up must not take the answer from the others.
        return asyncio.shield(self._answers[message.id])

    def close(self) -> None:
        """Refuse what was not fetched yet and all that follows. Repeatable."""
        self._closed = True
        while self._offers:
            settle(self._offers.popleft()[1], accepted=False)
        self._news.set()

    @property
    def is_empty(self) -> bool:
        """Whether every offer was fetched."""
        return not self._offers

    async def fetch(self) -> Offer | None:
        """Wait for the next offer; None when the inbox is closed."""
        while not self._offers:
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
        return self._offers.popleft()


def settle(answer: asyncio.Future[bool] | None, *, accepted: bool) -> None:
    """Answer an offer, unless it was answered or its maker no longer waits."""
    if answer is not None and not answer.done():
        answer.set_result(accepted)
