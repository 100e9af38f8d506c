"""Measuring how much of its time limits a job has used."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow


class Stopwatch:
    """Adds up the time between each `start` and `stop`, in workflow time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._started_at: float | None = None

    @property
    def elapsed(self) -> timedelta:
        """The time measured so far."""
        running = 0.0 if self._started_at is None else workflow.time() - self._started_at
        return timedelta(seconds=self._seconds + running)

    def start(self) -> None:
        """Start or resume; no-op if running."""
        if self._started_at is None:
            self._started_at = workflow.time()

    def stop(self) -> None:
        """Pause; no-op if stopped."""
        # A workflow that is evicted from the worker's cache is unwound where workflow time is not
        # available.
        if workflow.in_workflow():
            self._seconds = self.elapsed.total_seconds()
            self._started_at = None


def seconds(limit: float | None) -> timedelta | None:
    """Return a limit in seconds as a timedelta; None stays None."""
    return None if limit is None else timedelta(seconds=limit)
