"""How long a turn waits after a usage limit or an overload of Claude's servers.

The job gives its slot back for that time. Then it resumes the same session, on the same host if
possible.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.errors import JobFailure
    from domain.failures import FailureCode
    from domain.usage_limits import is_plausible
    from workflows import policies


class RetryLater(Exception):
    """The job resumes at `until`; `reason` is a sentence for its user."""

    def __init__(self, until: datetime, reason: str) -> None:
        super().__init__(reason)
        self.until = until
        self.reason = reason


class TurnBackoff:
    """Counts the failures of one turn and decides how long the next wait is."""

    def __init__(self) -> None:
        self._limits = 0
        self._overloads = 0

    def after(self, failure: JobFailure) -> RetryLater | None:
        """Return the wait after a failure of Claude, or None if the failure is final."""
        match failure.code:
            case FailureCode.USAGE_LIMIT:
                return self._until_reset(failure)
            case FailureCode.CLAUDE_OVERLOADED:
                return self._until_less_load(failure)
            case _:
                return None

    def _until_reset(self, failure: JobFailure) -> RetryLater | None:
        now = workflow.now()
        resets_at = failure.resets_at or now + policies.UNKNOWN_RESET
        if not is_plausible(resets_at, now):
            return None
        waits = policies.MIN_LIMIT_WAITS
        minimum = waits[min(self._limits, len(waits) - 1)]
        self._limits += 1
        until = max(resets_at, now + minimum)
        return RetryLater(until + _jitter(until - now), failure.message)

    def _until_less_load(self, failure: JobFailure) -> RetryLater | None:
        if self._overloads >= len(policies.OVERLOAD_BACKOFF):
            return None
        wait = policies.OVERLOAD_BACKOFF[self._overloads]
        self._overloads += 1
        return RetryLater(workflow.now() + wait + _jitter(wait), failure.message)


def _jitter(wait: timedelta) -> timedelta:
    limit = min(policies.MAX_JITTER, wait * policies.MAX_JITTER_SHARE)
    return limit * workflow.random().random()
