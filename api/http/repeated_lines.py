"""Keeps clients from flooding the log."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

LINE_EVERY_SECONDS = 10.0


@dataclass(slots=True)
class _Line:
    written_at: float
    left_out: int = 0


class RepeatedLines(logging.Filter):
    """Lets one warning of each kind through in `LINE_EVERY_SECONDS`, with how many were left out.

    The kind is the text before its arguments are filled in, so clients cannot make up new ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, _Line] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written."""
        if record.levelno != logging.WARNING:
            return True
        now = time.monotonic()
        line = self._lines.get(record.msg)
        if line is not None and now - line.written_at < LINE_EVERY_SECONDS:
            line.left_out += 1
            return False
        self._lines[record.msg] = _Line(now)
        if line is not None and line.left_out:
            record.msg += f" ({line.left_out} more like it before)"
        return True
