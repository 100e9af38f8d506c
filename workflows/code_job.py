"""A code job: worktree, Claude, commit, push, pull request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.pull_requests import OpenInput, PullRequestActivities, WithdrawInput
    from activities.records import RECORDS_TASK_QUEUE
    from activities.slots import GRANT_SIGNAL, Grant
    from activities.workspaces import Published, PublishInput, WorkspaceActivities
    from domain.jobs import Outcome
    from workflows import policies
    from workflows.job_steps import JobResult, JobSteps, cancelled, completed, failed, show
    from workflows.perform import perform
    from workflows.slot import Slot

CODE_JOB = "CodeJob"


@dataclass(frozen=True, slots=True)
class CodeJobInput:
    """`time_limit_seconds` bounds the run of Claude."""

    job_id: str
    time_limit_seconds: float


@workflow.defn(name=CODE_JOB)
class CodeJobWorkflow:
    """Runs one code job to its end; every step can be taken up again on another lease."""

    @workflow.init
    def __init__(self, job: CodeJobInput) -> None:
        self._job_id = job.job_id
        self._slot = Slot(job.job_id)
        self._steps = JobSteps(job.job_id, self._slot, timedelta(seconds=job.time_limit_seconds))
        self._attempt = 0
        self._worked_on: str | None = None
        self._created_branch = False
        self._published: Published | None = None

    @workflow.signal(name=GRANT_SIGNAL)
    def slot_granted(self, grant: Grant) -> None:
        """Learn which machine holds the slot."""
        self._slot.granted(grant)

    @workflow.run
    async def run(self, job: CodeJobInput) -> JobResult:
        """Return how the job ended."""
        try:
            ending = completed(job.job_id, await self._slot.work(self._deliver))
        except asyncio.CancelledError:
            await self._withdraw()
            ending = cancelled(job.job_id, started=self._slot.last_grant is not None)
        except Exception as error:  # noqa: BLE001  a job always ends with a status and a reason
            ending = failed(job.job_id, error, started=self._slot.last_grant is not None)
        return await self._steps.finish(ending)

    async def _deliver(self, grant: Grant) -> Outcome:
        """Go on from what earlier leases reached, to the pull request."""
        if self._published is None:
            self._published = await self._work_and_publish(grant)
        if self._published.sha is None:
            return Outcome.NO_CHANGES
        self._slot.go_on()
        show("Opening the pull request", grant)
        await perform(
            PullRequestActivities.open_pull_request,
            OpenInput(self._slot.key, self._published.sha),
            grant.task_queue,
            policies.PULL_REQUEST,
        )
        return Outcome.PULL_REQUEST

    async def _work_and_publish(self, grant: Grant) -> Published:
        prepared = await self._steps.prepare(grant)
        self._created_branch = not prepared.continues_branch
        if self._worked_on != grant.host_id:
            self._attempt += 1
            await self._steps.run_claude(grant, 1, self._attempt, [])
            self._worked_on = grant.host_id
        self._slot.go_on()
        show("Publishing", grant)
        return await perform(
            WorkspaceActivities.publish,
            PublishInput(self._slot.key),
            grant.task_queue,
            policies.PUBLISH,
        )

    async def _withdraw(self) -> None:
        """Take back what a cancelled job had published, or may have."""
        if self._worked_on is None:
            return
        await perform(
            PullRequestActivities.withdraw,
            WithdrawInput(self._job_id, self._created_branch),
            RECORDS_TASK_QUEUE,
            policies.WITHDRAW,
        )
