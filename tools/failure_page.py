"""Writes docs/failures.md from the failure codes: `make docs`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from domain.failures import FailureCode, TimeLimit

_INTRODUCTION = """\
# Why jobs fail

Made by `make docs` from `domain/failures.py`.

A failed job has a `failure` with a `code`, a `message`, a `remedy` and `retryable`. The table calls
`message` the error message. `retryable` means that a retry can succeed although nothing was
changed. A retry with `from` set to publish does not run Claude again; see [api.md](api.md).
"""
_CLOCKS = """
With `timed_out`, `clock` names the time limit that ran out. `remedy` and `retryable` are those of
that limit.
"""


def failure_page() -> str:
    """Return the page as Markdown."""
    lines = (_INTRODUCTION, *_table("code", FailureCode), _CLOCKS, *_table("clock", TimeLimit), "")
    return "\n".join(lines)


def _table(name: str, entries: Iterable[FailureCode | TimeLimit]) -> Iterable[str]:
    yield f"| `{name}` | What happened | What to do | `retryable` |"
    yield "|---|---|---|---|"
    for entry in entries:
        retryable = "yes" if entry.retryable else "no"
        yield f"| `{entry}` | {entry.meaning} | {entry.remedy} | {retryable} |"


if __name__ == "__main__":
    sys.stdout.write(failure_page())
