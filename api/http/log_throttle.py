"""Limit how often a warning is logged, so that clients cannot flood the log."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

INTERVAL_SECONDS = 10.0


@dataclass(slots=True)
class _Line:
    logged_at: float
    dropped: int = 0


class LogThrottle(logging.Filter):
    """Passes one warning of each kind in `INTERVAL_SECONDS`, and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, _Line] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        if record.levelno != logging.WARNING:
            return True
        now = time.monotonic()
        # The text without its arguments, so that clients cannot invent new kinds.
        line = self._lines.get(record.msg)
        if line is not None and now - line.logged_at < INTERVAL_SECONDS:
            line.dropped += 1
            return False
        self._lines[record.msg] = _Line(now)
        if line is not None and line.dropped:
            record.msg += f" ({line.dropped} more like it before)"
        return True
