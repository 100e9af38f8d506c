"""A user who sends messages to a conversation and records the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx

from tests.stack import Stack

ANSWERED = 200
REFUSED = frozenset({400, 404, 503})
"""The message was not accepted, so Claude must never see it."""

MAX_ATTEMPTS = 100
PAUSE = 0.5
"""Seconds between attempts; 100 attempts take longer than any fault."""


class UserMessages:
    """The messages of one user, each with a different text, in the order of sending."""

    def __init__(self, stack: Stack, job_id: str) -> None:
        self._stack = stack
        self._job_id = job_id
        self._writer: threading.Thread | None = None
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []

    def send(self, text: str) -> int | None:
        """Send one message; return the HTTP status, or None if the connection failed."""
        try:
            answer = self._stack.http.post(f"/jobs/{self._job_id}/message", json={"message": text})
        except httpx.TransportError:
            self.unknown.append(text)
            return None
        status = answer.status_code
        kept = self.accepted if status == ANSWERED else self.refused
        (kept if status == ANSWERED or status in REFUSED else self.unknown).append(text)
        return status

    def start_sending(self, count: int) -> None:
        """Send messages one after the other in a thread."""

        def write() -> None:
            for number in range(count):
                self.send(f"Message {number}.")

        self._start(write)

    def start_until_accepted(self) -> None:
        """Send messages in a thread until one is accepted."""

        def write() -> None:
            for number in range(MAX_ATTEMPTS):
                if self.send(f"Message {number}.") == ANSWERED:
                    return
                time.sleep(PAUSE)

        self._start(write)

    def _start(self, write: Callable[[], None]) -> None:
        self._writer = threading.Thread(target=write, daemon=True)
        self._writer.start()

    def wait(self, seconds: float = 90) -> None:
        """Wait until all messages have an answer."""
        if self._writer is not None:
            self._writer.join(seconds)
            assert not self._writer.is_alive(), "a message got no answer"
