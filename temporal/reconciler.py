"""Repairs differences between the store and Temporal, for example after a crash.

Every worker runs a `Reconciler`. Its work is idempotent, so several at a time do no harm.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.job_records import FinishJobInput, ForgetWorkspaceInput, RecordActivities
from domain.errors import OrchestratorError
from domain.failures import FailureCode
from domain.jobs import JobState, JobStatus
from domain.timestamps import utc_now
from store.protocol import Store
from temporal.start_job import JobLimits, start_job
from workflows.steps import workflow_id

INTERVAL = timedelta(seconds=5)
MIN_ROW_AGE = timedelta(seconds=10)
"""The workflow of a younger row may just be starting, by the POST request that created the row."""

PAGE_SIZE = 100

log = logging.getLogger(__name__)


class Reconciler:
    """Compares rows with their workflows, one page at a time."""

    def __init__(self, store: Store, temporal: TemporalClient, limits: JobLimits) -> None:
        self._store = store
        self._records = RecordActivities(store)
        self._temporal = temporal
        self._limits = limits
        self._after = ""

    async def run_forever(self) -> None:
        """Reconcile every few seconds until cancelled. An outage is logged and retried."""
        while True:
            try:
                await self.reconcile_page()
            except (OrchestratorError, RPCError) as error:
                log.warning("Reconciling failed and will be retried: %s", error)
            await asyncio.sleep(INTERVAL.total_seconds())

    async def reconcile_page(self) -> None:
        """Check the next page of rows. After the last page, start again with the first."""
        created_before = utc_now() - MIN_ROW_AGE
        page = await self._store.jobs_to_reconcile(created_before, self._after, PAGE_SIZE)
        for job in page:
            # Advance first, so that a job that cannot be reconciled does not block the others.
            self._after = job.id
            await self._reconcile(job)
        if len(page) < PAGE_SIZE:
            self._after = ""

    async def _reconcile(self, job: JobState) -> None:
        status = await self._workflow_status(job.id)
        if status is WorkflowExecutionStatus.RUNNING:
            if not job.is_live:
                await self._temporal.get_workflow_handle(workflow_id(job.id)).cancel()
        elif not job.is_live:
            await self._records.forget_workspace(ForgetWorkspaceInput(job.id))
        elif status is None:
            log.info("Job %s has no workflow; starting it", job.id)
            await self._start(job)
        else:
            await self._end(job, status)

    async def _workflow_status(self, job_id: str) -> WorkflowExecutionStatus | None:
        handle = self._temporal.get_workflow_handle(workflow_id(job_id))
        try:
            return (await handle.describe()).status
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def _start(self, job: JobState) -> None:
        details = await self._store.get_job(job.id)
        if details is not None and details.job.is_live:
            name = details.repository.full_name if details.repository else ""
            await start_job(self._temporal, details.job, name, self._limits)

    async def _end(self, job: JobState, status: WorkflowExecutionStatus) -> None:
        """Finish a job whose workflow was cancelled, terminated or failed from outside."""
        log.warning("The workflow of job %s has ended (%s); ending the job", job.id, status.name)
        if status is WorkflowExecutionStatus.CANCELED:
            await self._records.finish_job(FinishJobInput(job.id, JobStatus.CANCELLED))
        else:
            code = FailureCode.WORKFLOW_ENDED
            ending = FinishJobInput(
                job.id, JobStatus.FAILED, failure_code=code, error=code.sentence
            )
            await self._records.finish_job(ending)
