"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `problem` includes the remedy; None if the check passed.

    `is_fatal` means that jobs, or code jobs, cannot run until the problem is solved.
    """

    subject: str
    state: str = ""
    problem: str | None = None
    is_fatal: bool = True

    @property
    def line(self) -> str:
        """The printed line."""
        if self.problem is None:
            return f"ok       {self.subject}: {self.state}"
        return f"{'PROBLEM' if self.is_fatal else 'warning'}  {self.subject}: {self.problem}"
