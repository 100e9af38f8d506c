"""Times in which a job can do nothing: a usage limit, or servers that are overloaded.

It needs no slot meanwhile, and goes on in the same session on the same machine afterwards.
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
    """The job goes on at `until`; `reason` is a sentence for its user."""

    def __init__(self, until: datetime, reason: str) -> None:
        super().__init__(reason)
        self.until = until
        self.reason = reason


class Standstills:
    """Decides how long one turn of a job stands still, each time that it has to."""

    def __init__(self) -> None:
        self._limits = 0
        self._overloads = 0

    def after(self, failure: JobFailure) -> RetryLater | None:
        """Return what a failure of Claude's is waited out with; None when it is final."""
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
        pauses = policies.LIMIT_PAUSES
        least = now + pauses[min(self._limits, len(pauses) - 1)]
        self._limits += 1
        until = max(resets_at, least)
        return RetryLater(until + _stagger(until - now), failure.message)

    def _until_less_load(self, failure: JobFailure) -> RetryLater | None:
        if self._overloads >= len(policies.OVERLOAD_PAUSES):
            return None
        pause = policies.OVERLOAD_PAUSES[self._overloads]
        self._overloads += 1
        return RetryLater(workflow.now() + pause + _stagger(pause), failure.message)


def _stagger(wait: timedelta) -> timedelta:
    most = min(policies.STAGGER, wait * policies.STAGGER_SHARE)
    return most * workflow.random().random()
