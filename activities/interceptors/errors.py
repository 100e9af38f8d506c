"""How errors cross from activities to workflows: the one place that translates them.

An activity raises `JobFailure` and its kin; `ErrorInterceptor`, registered on every worker, turns
them into `ApplicationError` whose `type` is a `FailureCode` value, or one of those below for what
is not the job's fault. `failure_from` reads it back in the workflow.
"""

from __future__ import annotations

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

# Every cancellation ends an activity like this; the SDK logs other errors with a traceback.
_EXPECTED = ApplicationErrorCategory.BENIGN

_NOT_THE_JOBS_FAULT = {LEASE_LOST, JOB_ENDED, UNAVAILABLE, WORKER_SHUTDOWN}

log = logging.getLogger(__name__)


class ErrorInterceptor(Interceptor):
    """Translates what activities raise."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap the chain."""
        return _Translating(next)


class _Translating(ActivityInboundInterceptor):
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
            particulars = _particulars(error)
            return ApplicationError(
                text, *particulars, type=error.code.value, non_retryable=not error.transient
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
    """Return what an unexpected operating-system error means for the job."""
    if error.errno in {28, 122}:
        return JobFailure(FailureCode.DISK_FULL)
    return JobFailure(FailureCode.INTERNAL, f"{type(error).__name__}: {error}", transient=True)


def failure_from(error: BaseException) -> JobFailure | None:
    """Return the failure a workflow caught; None when the host, lease or job was given up.

    A lost lease, a host that stops, no longer beats or no longer polls its queue, an outage of the
    store or of Temporal, and a cancellation say nothing about the job itself: the workflow goes on
    under another lease, or stops because it was told to.
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
                f"The step {step} took too long and was given up. Retry the job.",
            )
        case TimeoutError() | CancelledError():
            return None
        case _:
            return JobFailure(FailureCode.INTERNAL, f"{type(cause).__name__}: {cause}")


def _particulars(failure: JobFailure) -> list[dict[str, str | None]]:
    """Return what a failure carries besides its code and text, as JSON can hold it."""
    clock, resets_at = failure.clock, failure.resets_at
    if clock is None and resets_at is None:
        return []
    return [
        {
            "clock": clock.value if clock else None,
            "resets_at": resets_at.isoformat() if resets_at else None,
        }
    ]


def _job_failure(cause: ApplicationError) -> JobFailure:
    codes = (code for code in FailureCode if code.value == cause.type)
    particulars = cause.details[0] if cause.details else {}
    clocks = (clock for clock in TimeLimit if clock.value == particulars.get("clock"))
    resets_at = particulars.get("resets_at")
    return JobFailure(
        next(codes, FailureCode.INTERNAL),
        cause.message,
        transient=not cause.non_retryable,
        clock=next(clocks, None),
        resets_at=datetime.fromisoformat(resets_at) if resets_at else None,
    )


def took_too_long(error: ActivityError) -> bool:
    """Tell whether the activity, and not the machine it ran on, ran into a time limit."""
    limits = {TimeoutType.START_TO_CLOSE, TimeoutType.SCHEDULE_TO_CLOSE}
    return isinstance(error.cause, TimeoutError) and error.cause.type in limits


def found_nobody(error: ActivityError) -> bool:
    """Tell whether no process took the activity from its queue in time."""
    cause = error.cause
    return isinstance(cause, TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START


def was_given_up(error: ActivityError) -> bool:
    """Tell whether a process ended or gave its lease up, so that its machine may go on with it."""
    cause = error.cause
    return isinstance(cause, ApplicationError) and cause.type in {LEASE_LOST, WORKER_SHUTDOWN}


def job_ended(error: ActivityError) -> JobEnded | None:
    """Return that the job has a final status, if that is what the activity reported."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type == JOB_ENDED:
        return JobEnded(cause.message)
    return None


def present_lease(error: ActivityError) -> int:
    """Return the number of the lease the job has by now, as the activity reported it, else 0."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type == LEASE_LOST and cause.details:
        return int(cause.details[0] or 0)
    return 0
