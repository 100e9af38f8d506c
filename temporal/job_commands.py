"""The API's calls to Temporal: starting, messaging, completing and cancelling jobs."""

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

from activities.workspaces import FetchMirrorResult
from domain.errors import (
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    OutcomeUnknown,
)
from domain.jobs import Job
from domain.repositories import Repository
from temporal.start_job import JobLimits, start_job
from workflows.policies import sync_timeout
from workflows.steps import JOBS_TASK_QUEUE, workflow_id
from workflows.sync_repositories import SyncRepositoriesInput, SyncRepositoriesWorkflow
from workflows.task_job import NOT_ACCEPTING, TaskJobWorkflow

HEALTH_TIMEOUT = timedelta(seconds=1)
"""Includes connecting, which has no limit of its own: a stopped server process accepts the
connection and never answers."""

RPC_TIMEOUT = timedelta(seconds=5)
"""Starts and cancellations take milliseconds; longer means that the server has a problem."""

UPDATE_TIMEOUT = timedelta(seconds=20)
"""An update takes some 0.1 s (measured). After the death of a worker, another continues its
workflows within seconds, which 20 s include."""

CANCEL_WAIT = timedelta(seconds=8)
"""Stopping Claude takes up to 5 s if it ignores SIGTERM. The cancellation is certain before the
wait. The caller waits so that the process is usually gone when the API answers."""

log = logging.getLogger(__name__)


class Dispatch:
    """Starts, updates and cancels the workflows of jobs."""

    def __init__(self, temporal: TemporalClient, limits: JobLimits) -> None:
        self._temporal = temporal
        self._limits = limits

    async def is_reachable(self) -> bool:
        """Return whether Temporal answers within a second."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT.total_seconds()):
                return await self._temporal.service_client.check_health()
        except (RPCError, RuntimeError, TimeoutError):
            return False

    async def start(self, job: Job, repository: Repository) -> None:
        """Start the workflow of a job whose row is stored.

        The row is the acceptance, so an outage of Temporal is not an error: the reconciler starts
        the workflow later.
        """
        try:
            await self._require_reachable()
            await start_job(self._temporal, job, repository.full_name, self._limits)
        except (DependencyUnavailable, RPCError) as error:
            log.warning(
                "Job %s is stored. The reconciler will start its workflow: %s", job.id, error
            )

    async def cancel(self, job_id: str) -> None:
        """Cancel a job's workflow and wait for its end, up to `CANCEL_WAIT`.

        The row is cancelled already. If Temporal is down, the reconciler cancels the workflow.
        """
        handle = self._temporal.get_workflow_handle(workflow_id(job_id))
        try:
            await self._require_reachable()
            await handle.cancel(rpc_timeout=RPC_TIMEOUT)
            await asyncio.wait_for(handle.result(follow_runs=False), CANCEL_WAIT.total_seconds())
        except TimeoutError:
            log.warning("Job %s is cancelled. Its workflow has not ended yet", job_id)
        except WorkflowFailureError as error:
            log.warning(
                "Job %s is cancelled. Its workflow had ended with an error: %s", job_id, error.cause
            )
        except (DependencyUnavailable, TemporalError) as error:
            log.warning(
                "Job %s is cancelled. The reconciler will cancel its workflow: %s", job_id, error
            )

    async def send_message(self, job_id: str, message_id: str) -> None:
        """Send a message that is in the message queue. Idempotent.

        Raises:
            InvalidRequest: the conversation accepts no more messages.
            DependencyUnavailable: Temporal does not answer; the message was not sent.
            DependencyFailed: the message was not accepted.
            OutcomeUnknown: it is unknown whether the message was accepted.
        """
        await self._require_reachable()
        handle = self._temporal.get_workflow_handle_for(TaskJobWorkflow.run, workflow_id(job_id))
        try:
            await handle.execute_update(
                TaskJobWorkflow.send_message,
                message_id,
                id=message_id,
                rpc_timeout=UPDATE_TIMEOUT,
            )
        except Exception as error:  # noqa: BLE001  `_raise_refusal` handles every error
            _raise_refusal(
                error,
                "The message could not be delivered.",
                "Job is not accepting messages (not interactive or already finished).",
            )

    async def complete(self, job_id: str) -> None:
        """End a conversation.

        Raises:
            InvalidRequest: it has already ended.
            DependencyUnavailable: Temporal does not answer; nothing was changed.
            DependencyFailed: the conversation could not end.
            OutcomeUnknown: it is unknown whether the conversation will end.
        """
        await self._require_reachable()
        handle = self._temporal.get_workflow_handle_for(TaskJobWorkflow.run, workflow_id(job_id))
        try:
            await handle.execute_update(TaskJobWorkflow.complete, rpc_timeout=UPDATE_TIMEOUT)
        except Exception as error:  # noqa: BLE001  `_raise_refusal` handles every error
            _raise_refusal(
                error,
                "The conversation could not be ended.",
                "Job is not interactive or already finished.",
            )

    async def sync_repositories(
        self, name: str, repositories: list[Repository]
    ) -> list[FetchMirrorResult]:
        """Fetch repositories on every host and wait for the results.

        Concurrent calls with the same `name` share one run.

        Raises:
            DependencyUnavailable: Temporal does not answer.
            DependencyFailed: the workflow was cancelled or terminated.
        """
        await self._require_reachable()
        request = SyncRepositoriesInput([(entry.id, entry.full_name) for entry in repositories])
        try:
            handle = await self._temporal.start_workflow(
                SyncRepositoriesWorkflow.run,
                request,
                id=f"sync-{name}",
                task_queue=JOBS_TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                execution_timeout=sync_timeout(len(repositories)),
                static_summary=f"Fetch {len(repositories)} repositories",
                rpc_timeout=RPC_TIMEOUT,
            )
            return await handle.result()
        except WorkflowFailureError as error:
            raise DependencyFailed(
                "Fetching was stopped before it was finished. Try again.", "temporal"
            ) from error
        except RPCError as error:
            raise DependencyUnavailable(
                "Temporal stopped answering before everything was fetched. Try again when /health "
                "is ok.",
                "temporal",
            ) from error

    async def _require_reachable(self) -> None:
        """Check that Temporal answers. A call that fails after this may still have had an effect.

        Raises:
            DependencyUnavailable: Temporal does not answer, and nothing was sent to it.
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
                f"{what} The workflow received it but did not answer in time. Check that a worker "
                "is running, and look at the job's messages before sending it again.",
                "temporal",
            ) from error
        case _:
            raise error
