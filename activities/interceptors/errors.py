"""Translates the errors of activities for Temporal, and back in the workflow.

`ErrorInterceptor`, registered on every worker, turns a `JobFailure` into an `ApplicationError` with
the `FailureCode` as its type. Errors that are not the job's fault have one of the types below.
`failure_from` reads the failure back in the workflow.
"""

from __future__ import annotations

import errno
import logging
from datetime import datetime
from typing import Any

from temporalio import activity
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ApplicationErrorCategory,
    CancelledError,
    TimeoutError,
    TimeoutType,
)
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from domain.errors import (
    DependencyUnavailable,
    JobEnded,
    JobFailure,
    LeaseLost,
    OrchestratorError,
)
from domain.failures import FailureCode, TimeLimit

LEASE_LOST = "lease_lost"
JOB_ENDED = "job_ended"
UNAVAILABLE = "unavailable"
WORKER_SHUTDOWN = "WorkerShutdown"
"""Temporal's own name for an activity that was running when its worker stopped (measured)."""

MAX_ERROR_CHARACTERS = 2000

# Cancelled activities end with these errors. The SDK logs errors of other categories with a
# traceback.
_EXPECTED = ApplicationErrorCategory.BENIGN

_NOT_THE_JOBS_FAULT = {LEASE_LOST, JOB_ENDED, UNAVAILABLE, WORKER_SHUTDOWN}

log = logging.getLogger(__name__)


class ErrorInterceptor(Interceptor):
    """Translates the errors of all activities."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap an activity's calls."""
        return _ErrorTranslation(next)


class _ErrorTranslation(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            return await super().execute_activity(input)
        except OrchestratorError as error:
            raise application_error(error) from error
        except OSError as error:
            log.exception("Activity %s failed", activity.info().activity_type)
            raise application_error(failure_from_os_error(error)) from error


def application_error(error: OrchestratorError) -> ApplicationError:
    """Return the Temporal form of `error`."""
    text = error.message[:MAX_ERROR_CHARACTERS]
    match error:
        case JobFailure():
            details = _details(error)
            return ApplicationError(
                text, *details, type=error.code.value, non_retryable=not error.transient
            )
        case JobEnded():
            return ApplicationError(text, type=JOB_ENDED, non_retryable=True, category=_EXPECTED)
        case LeaseLost(present=present):
            return ApplicationError(
                text, present, type=LEASE_LOST, non_retryable=True, category=_EXPECTED
            )
        case DependencyUnavailable(system="store" | "temporal"):
            return ApplicationError(text, type=UNAVAILABLE)
        case DependencyUnavailable():
            return ApplicationError(text, type=FailureCode.INTERNAL.value)
        case _:
            return ApplicationError(text, type=FailureCode.INTERNAL.value, non_retryable=True)


def failure_from_os_error(error: OSError) -> JobFailure:
    """Return the job's failure for an unexpected operating-system error."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return JobFailure(FailureCode.DISK_FULL)
    return JobFailure(FailureCode.INTERNAL, f"{type(error).__name__}: {error}", transient=True)


def failure_from(error: BaseException) -> JobFailure | None:
    """Return the job's failure, or None if the error is not the job's fault.

    Not the job's fault are a lost lease, a host that stops, misses its heartbeats or does not poll
    its queue, an outage of the store or of Temporal, and a cancellation. The workflow then
    continues under another lease, or stops because it was cancelled.
    """
    cause = error.__cause__ if isinstance(error, ActivityError) else error
    match cause:
        case JobFailure():
            return cause
        case ApplicationError(type=kind) if kind in _NOT_THE_JOBS_FAULT:
            return None
        case ApplicationError():
            return _job_failure(cause)
        case TimeoutError(type=TimeoutType.START_TO_CLOSE):
            step = error.activity_type if isinstance(error, ActivityError) else "step"
            return JobFailure(
                FailureCode.INTERNAL,
                f"The step {step} took too long and was stopped. Retry the job.",
            )
        case TimeoutError() | CancelledError():
            return None
        case _:
            return JobFailure(FailureCode.INTERNAL, f"{type(cause).__name__}: {cause}")


def _details(failure: JobFailure) -> list[dict[str, str | None]]:
    """Return the other attributes of a failure as JSON values."""
    time_limit, resets_at = failure.clock, failure.resets_at
    if time_limit is None and resets_at is None:
        return []
    return [
        {
            "time_limit": time_limit.value if time_limit else None,
            "resets_at": resets_at.isoformat() if resets_at else None,
        }
    ]


def _job_failure(cause: ApplicationError) -> JobFailure:
    codes = (code for code in FailureCode if code.value == cause.type)
    details = cause.details[0] if cause.details else {}
    limits = (limit for limit in TimeLimit if limit.value == details.get("time_limit"))
    resets_at = details.get("resets_at")
    return JobFailure(
        next(codes, FailureCode.INTERNAL),
        cause.message,
        transient=not cause.non_retryable,
        clock=next(limits, None),
        resets_at=datetime.fromisoformat(resets_at) if resets_at else None,
    )


def took_too_long(error: ActivityError) -> bool:
    """Return whether the activity ran out of time, although its host was alive."""
    limits = {TimeoutType.START_TO_CLOSE, TimeoutType.SCHEDULE_TO_CLOSE}
    return isinstance(error.cause, TimeoutError) and error.cause.type in limits


def found_no_worker(error: ActivityError) -> bool:
    """Return whether no process took the activity from its queue in time."""
    cause = error.cause
    return isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START


def was_given_up(error: ActivityError) -> bool:
    """Return whether a process ended or gave its lease up. Its host may still be available."""
    cause = error.cause
    return isinstance(cause, ApplicationError) and cause.type in {LEASE_LOST, WORKER_SHUTDOWN}


def job_ended(error: ActivityError) -> JobEnded | None:
    """Return `JobEnded` if the activity failed with it, otherwise None."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type == JOB_ENDED:
        return JobEnded(cause.message)
    return None


def current_lease(error: ActivityError) -> int:
    """Return the number of the job's newest lease if the activity reported one, otherwise 0."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type == LEASE_LOST and cause.details:
        return int(cause.details[0] or 0)
    return 0
