"""A user who writes to a conversation and remembers what was answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx

from tests.stack import Stack

ANSWERED = 200
REFUSED = frozenset({400, 404, 503})
"""Says that the message was not taken, so Claude must never see it."""


INSISTING = 100
PAUSE = 0.5


class Mail:
    """Messages of one user, each with a text of its own, in the order of sending."""

    def __init__(self, stack: Stack, job_id: str) -> None:
        self._stack = stack
        self._job_id = job_id
        self._writer: threading.Thread | None = None
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []

    def send(self, text: str) -> int | None:
        """Send one message; returns the HTTP status, None when the connection broke."""
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
        """Send messages one after the other, beside the test."""

        def write() -> None:
            for number in range(count):
                self.send(f"Message {number}.")

        self._start(write)

    def start_insisting(self) -> None:
        """Send a message, and another until one is accepted, beside the test."""

        def write() -> None:
            for number in range(INSISTING):
                if self.send(f"Message {number}.") == ANSWERED:
                    return
                time.sleep(PAUSE)

        self._start(write)

    def _start(self, write: Callable[[], None]) -> None:
        self._writer = threading.Thread(target=write, daemon=True)
        self._writer.start()

    def wait(self, seconds: float = 90) -> None:
        """Wait until everything has been answered."""
        if self._writer is not None:
            self._writer.join(seconds)
            assert not self._writer.is_alive(), "a message was not answered at all"
