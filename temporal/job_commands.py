"""From requests to workflows: the only place of the API that calls Temporal."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import NoReturn

from temporalio.client import Client as TemporalClient
from temporalio.client import (
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, TemporalError
from temporalio.service import RPCError, RPCStatusCode

from activities.workspaces import MirrorResult
from domain.errors import (
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    OutcomeUnknown,
)
from domain.jobs import Job
from domain.repositories import Repository
from temporal.start_job import JobLimits, start_job
from workflows.steps import JOBS_TASK_QUEUE, workflow_id
from workflows.sync_repositories import FetchMirrorsWorkflow, MirrorsInput, fetch_timeout
from workflows.task_job import NOT_ACCEPTING, TaskJobWorkflow

REACHABLE_WITHIN = timedelta(seconds=1)
"""Spans the connecting too, which has no limit of its own: a server that is stopped takes the
connection and never answers."""

RPC_TIMEOUT = timedelta(seconds=5)
UPDATE_TIMEOUT = timedelta(seconds=20)
"""An update is answered in some 0.1 s (measured). After a worker's death its workflow is taken up
by another within seconds; 20 s spans that."""

CANCEL_WAIT = timedelta(seconds=8)
"""Ending Claude takes up to 5 s when it resists. The cancellation is certain before the wait; the
wait is there so that the process is gone, too, when the caller has the answer."""

log = logging.getLogger(__name__)


class Dispatch:
    """Starts, messages and ends jobs' workflows."""

    def __init__(self, temporal: TemporalClient, limits: JobLimits) -> None:
        self._temporal = temporal
        self._limits = limits

    async def is_reachable(self) -> bool:
        """Tell whether Temporal answers within a second."""
        try:
            async with asyncio.timeout(REACHABLE_WITHIN.total_seconds()):
                return await self._temporal.service_client.check_health()
        except (RPCError, RuntimeError, TimeoutError):
            return False

    async def start(self, job: Job, repository: Repository) -> None:
        """Start a job whose row is stored; failing that, the reconciler starts it later.

        The row is the acceptance, so an outage of Temporal is no error here.
        """
        try:
            await self._reach()
            await start_job(self._temporal, job, repository.full_name, self._limits)
        except (DependencyUnavailable, RPCError) as error:
            log.warning("Job %s is stored; its workflow starts later: %s", job.id, error)

    async def cancel(self, job_id: str) -> None:
        """Ask a job's workflow to stop, and wait a little until it has.

        The row is cancelled already; if Temporal is down the reconciler asks again.
        """
        handle = self._temporal.get_workflow_handle(workflow_id(job_id))
        try:
            await self._reach()
            await handle.cancel(rpc_timeout=RPC_TIMEOUT)
            await asyncio.wait_for(handle.result(follow_runs=False), CANCEL_WAIT.total_seconds())
        except TimeoutError:
            log.warning("Job %s is cancelled, its workflow has not ended yet", job_id)
        except WorkflowFailureError as error:
            log.warning(
                "Job %s is cancelled; its workflow ended by itself: %s", job_id, error.cause
            )
        except (DependencyUnavailable, TemporalError) as error:
            log.warning("Job %s is cancelled; its workflow is told later: %s", job_id, error)

    async def send_message(self, job_id: str, message_id: str) -> None:
        """Hand over a message that lies in the inbox.

        Raises:
            InvalidRequest: the conversation takes no more messages.
            DependencyUnavailable: Temporal does not answer; the message was not handed over.
            DependencyFailed: the message was not accepted.
            OutcomeUnknown: it is not known whether the message was accepted.
        """
        await self._reach()
        handle = self._temporal.get_workflow_handle_for(TaskJobWorkflow.run, workflow_id(job_id))
        try:
            await handle.execute_update(
                TaskJobWorkflow.send_message,
                message_id,
                id=message_id,
                rpc_timeout=UPDATE_TIMEOUT,
            )
        except Exception as error:  # noqa: BLE001  every failure is sorted in one place
            _raise_refusal(
                error,
                "The message could not be delivered.",
                "Job is not accepting messages (not interactive or already finished).",
            )

    async def complete(self, job_id: str) -> None:
        """End a conversation.

        Raises:
            InvalidRequest: it has ended already.
            DependencyUnavailable: Temporal does not answer; the conversation was not told.
            DependencyFailed: it was told, and could not end.
            OutcomeUnknown: it is not known whether it was told.
        """
        await self._reach()
        handle = self._temporal.get_workflow_handle_for(TaskJobWorkflow.run, workflow_id(job_id))
        try:
            await handle.execute_update(TaskJobWorkflow.complete, rpc_timeout=UPDATE_TIMEOUT)
        except Exception as error:  # noqa: BLE001  every failure is sorted in one place
            _raise_refusal(
                error,
                "The conversation could not be ended.",
                "Job is not interactive or already finished.",
            )

    async def fetch_mirrors(self, name: str, repositories: list[Repository]) -> list[MirrorResult]:
        """Fetch repositories on every machine and wait for it.

        Callers that ask for the same `name` at once share one run.

        Raises:
            DependencyUnavailable: Temporal does not answer.
            DependencyFailed: the run was ended from outside.
        """
        await self._reach()
        request = MirrorsInput([(entry.id, entry.full_name) for entry in repositories])
        try:
            handle = await self._temporal.start_workflow(
                FetchMirrorsWorkflow.run,
                request,
                id=f"mirrors-{name}",
                task_queue=JOBS_TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                execution_timeout=fetch_timeout(len(repositories)),
                static_summary=f"Fetch {len(repositories)} repositories",
                rpc_timeout=RPC_TIMEOUT,
            )
            return await handle.result()
        except WorkflowFailureError as error:
            raise DependencyFailed(
                "The fetching was ended before it was done. Try again.", "temporal"
            ) from error
        except RPCError as error:
            raise DependencyUnavailable(
                "Temporal stopped answering before everything was fetched. Try again when /health "
                "is ok.",
                "temporal",
            ) from error

    async def _reach(self) -> None:
        """Return if Temporal answers: what fails after this may have happened all the same.

        Raises:
            DependencyUnavailable: it does not, so nothing was asked of it.
        """
        if not await self.is_reachable():
            raise DependencyUnavailable(
                "Temporal does not answer. Nothing was changed; try again when /health is ok.",
                "temporal",
            )


def _raise_refusal(error: Exception, what: str, gone: str) -> NoReturn:
    match error:
        case WorkflowUpdateFailedError(cause=ApplicationError(type=kind) as cause):
            if kind == NOT_ACCEPTING:
                raise InvalidRequest(cause.message) from error
            raise DependencyFailed(f"{what} Send it again.", "temporal") from error
        case RPCError(status=RPCStatusCode.NOT_FOUND):
            raise InvalidRequest(gone) from error
        case WorkflowUpdateRPCTimeoutOrCancelledError() | RPCError():
            raise OutcomeUnknown(
                f"{what} It was handed to the workflow, which did not answer in time; no worker "
                "may be running. Look at the job's messages before sending it again.",
                "temporal",
            ) from error
        case _:
            raise error
