"""Starting the workflow of a job: exactly one for each row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client as TemporalClient
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from domain.commit_text import subject
from domain.jobs import Job, JobType, RetryFrom
from workflows.code_job import CODE_JOB, CodeJobInput
from workflows.policies import WORKFLOW_TASK_TIMEOUT
from workflows.steps import (
    CLIENT_ID,
    JOB_STATUS,
    JOB_TYPE,
    JOBS_TASK_QUEUE,
    REPOSITORY,
    workflow_id,
)
from workflows.task_job import TASK_JOB, TaskJobInput

START_TIMEOUT = timedelta(seconds=5)
"""A start takes 5 to 30 ms (measured). After 5 s without an answer it may have happened or not, so
it is left to the reconciler."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Time limits for new workflows. A job's own time limit overrides `job_timeout`."""

    job_timeout: timedelta
    task_idle_timeout: timedelta
    turn_timeout: timedelta
    queue_timeout: timedelta | None = None


async def start_job(temporal: TemporalClient, job: Job, repository: str, limits: JobLimits) -> None:
    """Start the workflow of a job. Idempotent: a workflow that exists, running or not, is kept.

    Raises:
        RPCError: Temporal refused the start, or did not answer in time.
    """
    try:
        await temporal.start_workflow(
            *_workflow(job, limits),
            id=workflow_id(job.id),
            task_queue=JOBS_TASK_QUEUE,
            task_timeout=WORKFLOW_TASK_TIMEOUT,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            static_summary=subject(job),
            static_details=f"`{job.branch_name}` of {repository}",
            priority=Priority(priority_key=job.priority),
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(JOB_STATUS, job.status.value),
                    SearchAttributePair(JOB_TYPE, job.job_type.value),
                    SearchAttributePair(CLIENT_ID, job.client_id),
                    SearchAttributePair(REPOSITORY, repository),
                ]
            ),
            rpc_timeout=START_TIMEOUT,
        )
    except WorkflowAlreadyStartedError:
        return


def _workflow(job: Job, limits: JobLimits) -> tuple[str, CodeJobInput | TaskJobInput]:
    """Return the type and input of the job's workflow."""
    minutes = job.options.timeout_minutes
    job_timeout = limits.job_timeout if minutes is None else timedelta(minutes=minutes)
    queue_timeout = limits.queue_timeout
    queue_seconds = None if queue_timeout is None else queue_timeout.total_seconds()
    if job.job_type is JobType.TASK:
        return TASK_JOB, TaskJobInput(
            job.id,
            turn_limit_seconds=limits.turn_timeout.total_seconds(),
            idle_limit_seconds=limits.task_idle_timeout.total_seconds(),
            time_limit_seconds=job_timeout.total_seconds(),
            queue_limit_seconds=queue_seconds,
        )
    return CODE_JOB, CodeJobInput(
        job.id,
        time_limit_seconds=job_timeout.total_seconds(),
        turn_limit_seconds=limits.turn_timeout.total_seconds(),
        queue_limit_seconds=queue_seconds,
        publishes_only=job.retry_from is RetryFrom.PUBLISH,
        preferred_host=job.host,
    )
