"""Errors of a real activity in a real workflow."""

from __future__ import annotations

import asyncio
import errno
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client as TemporalClient
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.interceptors.errors import (
    MAX_ERROR_CHARACTERS,
    ErrorInterceptor,
    current_lease,
    failure_from,
    job_ended,
)
from domain.errors import (
    Conflict,
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    JobEnded,
    JobFailure,
    LeaseLost,
    NotFound,
    TooLarge,
)
from domain.failures import FailureCode

Make = Callable[[], BaseException]

RAISED: dict[str, Make] = {
    **{code.value: lambda code=code: JobFailure(code) for code in FailureCode},  # type: ignore[misc]
    "own words": lambda: JobFailure(FailureCode.GIT_FAILED, "The disk said no."),
    "transient": lambda: JobFailure(FailureCode.GITHUB_UNAVAILABLE, transient=True),
    "long": lambda: JobFailure(FailureCode.GIT_FAILED, "x" * 100_000),
    "lease lost": lambda: LeaseLost("Another has it.", present=7),
    "lease unknown": lambda: LeaseLost("Not held."),
    "ended": lambda: JobEnded("The job has ended."),
    "no store": lambda: DependencyUnavailable("The store is away.", "store"),
    "no temporal": lambda: DependencyUnavailable("Temporal is away.", "temporal"),
    "no git": lambda: DependencyUnavailable("git is not installed.", "git"),
    "failed": lambda: DependencyFailed("The store refused.", "store"),
    "invalid": lambda: InvalidRequest("No such branch."),
    "not found": lambda: NotFound("The repository does not exist."),
    "conflict": lambda: Conflict("It exists."),
    "large": lambda: TooLarge("Too large."),
    "full": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "quota": lambda: OSError(errno.EDQUOT, "Disk quota exceeded"),
    "denied": lambda: PermissionError(errno.EACCES, "Permission denied", "/data"),
    "bug": lambda: KeyError("phase"),
}


@dataclass(frozen=True)
class Raise:
    """The error to raise, the maximum number of attempts, and the delay before the error."""

    name: str
    attempts: int = 1
    dawdles: float = 0.0


@dataclass(frozen=True)
class Caught:
    """The error as the workflow receives it."""

    failure: str | None
    message: str | None
    ended: str | None
    present: int


attempts: dict[str, int] = {}


@activity.defn
async def raise_it(request: Raise) -> None:
    info = activity.info()
    attempts[info.workflow_id or ""] = info.attempt
    await asyncio.sleep(request.dawdles)
    raise RAISED[request.name]()


@workflow.defn
class CatchError:
    @workflow.run
    async def run(self, request: Raise) -> Caught:
        try:
            await workflow.execute_activity(
                raise_it,
                request,
                start_to_close_timeout=timedelta(seconds=1 if request.dawdles else 30),
                retry_policy=RetryPolicy(
                    initial_interval=timedelta(milliseconds=10), maximum_attempts=request.attempts
                ),
            )
        except ActivityError as error:
            failure, ended = failure_from(error), job_ended(error)
            return Caught(
                failure.code.value if failure else None,
                failure.message if failure else None,
                ended.message if ended else None,
                current_lease(error),
            )
        raise AssertionError


@pytest.fixture(scope="module")
async def catching(temporal: TemporalClient) -> AsyncIterator[TemporalClient]:
    worker = Worker(
        temporal,
        task_queue="catching",
        workflows=[CatchError],
        activities=[raise_it],
        interceptors=[ErrorInterceptor()],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        yield temporal


async def caught(temporal: TemporalClient, request: Raise) -> Caught:
    name = f"catches-{request.name}-{uuid.uuid4()}"
    result = await temporal.execute_workflow(
        CatchError.run, request, id=name, task_queue="catching"
    )
    assert attempts.pop(name) <= request.attempts
    return result


async def tries(temporal: TemporalClient, name: str) -> int:
    """Return how many of three possible attempts Temporal makes for this error."""
    workflow_id = f"tries-{name}-{uuid.uuid4()}"
    await temporal.execute_workflow(
        CatchError.run, Raise(name, attempts=3), id=workflow_id, task_queue="catching"
    )
    return attempts.pop(workflow_id)


async def test_each_failure_code_reaches_the_workflow(
    catching: TemporalClient,
) -> None:
    results = await asyncio.gather(*(caught(catching, Raise(code.value)) for code in FailureCode))
    assert [result.failure for result in results] == [code.value for code in FailureCode]
    assert [result.message for result in results] == [code.sentence for code in FailureCode]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("own words", FailureCode.GIT_FAILED, "The disk said no."),
        ("long", FailureCode.GIT_FAILED, "x" * MAX_ERROR_CHARACTERS),
        ("no git", FailureCode.INTERNAL, "git is not installed."),
        ("failed", FailureCode.INTERNAL, "The store refused."),
        ("invalid", FailureCode.INTERNAL, "No such branch."),
        ("not found", FailureCode.INTERNAL, "The repository does not exist."),
        ("conflict", FailureCode.INTERNAL, "It exists."),
        ("large", FailureCode.INTERNAL, "Too large."),
        ("full", FailureCode.DISK_FULL, FailureCode.DISK_FULL.sentence),
        ("quota", FailureCode.DISK_FULL, FailureCode.DISK_FULL.sentence),
        (
            "denied",
            FailureCode.INTERNAL,
            "PermissionError: [Errno 13] Permission denied: '/data'",
        ),
        ("bug", FailureCode.INTERNAL, "'phase'"),
    ],
)
async def test_failures_of_the_job_are_not_retried_by_temporal(
    catching: TemporalClient, name: str, code: FailureCode, message: str
) -> None:
    assert await caught(catching, Raise(name)) == Caught(code.value, message, None, 0)


@pytest.mark.parametrize(
    ("name", "ended", "present"),
    [
        ("lease lost", None, 7),
        ("lease unknown", None, 0),
        ("ended", "The job has ended.", 0),
        ("no store", None, 0),
        ("no temporal", None, 0),
    ],
)
async def test_errors_of_the_infrastructure_are_not_failures_of_the_job(
    catching: TemporalClient, name: str, ended: str | None, present: int
) -> None:
    assert await caught(catching, Raise(name)) == Caught(None, None, ended, present)


async def test_transient_errors_are_retried(catching: TemporalClient) -> None:
    again = ("transient", "no store", "no temporal", "no git", "denied", "bug")
    once = ("own words", "lease lost", "ended", "failed", "not found", "full")
    assert await asyncio.gather(*(tries(catching, name) for name in again)) == [3] * len(again)
    assert await asyncio.gather(*(tries(catching, name) for name in once)) == [1] * len(once)


async def test_a_step_that_takes_too_long_names_its_limit(catching: TemporalClient) -> None:
    result = await caught(catching, Raise("own words", dawdles=1.5))
    assert result.failure == FailureCode.INTERNAL.value
    assert result.message == "The step raise_it took too long and was stopped. Retry the job."
