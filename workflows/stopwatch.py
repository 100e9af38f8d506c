"""Measuring what a job uses of its time limits."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow


class Stopwatch:
    """Adds up the time between each `start` and `stop`, by the workflow's own clock.

    Nothing but these two moves it, so that no heartbeat and no line of output sets it back.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._since: float | None = None

    @property
    def elapsed(self) -> timedelta:
        """The time measured so far."""
        running = 0.0 if self._since is None else workflow.time() - self._since
        return timedelta(seconds=self._seconds + running)

    def start(self) -> None:
        """Go on measuring; one that runs goes on."""
        if self._since is None:
            self._since = workflow.time()

    def stop(self) -> None:
        """Pause; one that stands stays."""
        # A workflow that the worker drops from its memory is unwound where it has no clock.
        if workflow.in_workflow():
            self._seconds = self.elapsed.total_seconds()
            self._since = None


def seconds(limit: float | None) -> timedelta | None:
    """Return a limit in seconds as what it is; None for no limit."""
    return None if limit is None else timedelta(seconds=limit)
