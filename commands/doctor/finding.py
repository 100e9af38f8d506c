"""One line of the examination."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `problem` is None when all is well, else the remedy is in it.

    `is_fatal` says that no job, or no code job, could run like that.
    """

    subject: str
    state: str = ""
    problem: str | None = None
    is_fatal: bool = True

    @property
    def line(self) -> str:
        """The text shown."""
        if self.problem is None:
            return f"ok       {self.subject}: {self.state}"
        return f"{'PROBLEM' if self.is_fatal else 'warning'}  {self.subject}: {self.problem}"
