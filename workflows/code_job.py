"""A code job: worktree, Claude, commit, push, pull request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.job_records import RECORDS_TASK_QUEUE, FinishJobInput
    from activities.pull_requests import OpenInput, PullRequestActivities, WithdrawInput
    from activities.slots import GRANT_SIGNAL, SlotGrant
    from activities.workspaces import (
        PrepareResult,
        PublishInput,
        PublishResult,
        WorkspaceActivities,
    )
    from domain.jobs import JobStatus, Outcome
    from workflows.activity_calls import perform, shield_until_done
    from workflows.policies import PUBLISH, PULL_REQUEST, WITHDRAW
    from workflows.slot import Slot
    from workflows.steps import JobResult, JobSteps, completed, ended_early, show
    from workflows.stopwatch import seconds

CODE_JOB = "CodeJob"


@dataclass(frozen=True, slots=True)
class CodeJobInput:
    """Limits bound the job's time on a machine, one turn of Claude, and each wait for a slot.

    With `queue_limit_seconds` None the job waits for a slot as long as it takes. `publishes_only`
    tells that the work is there already, and `preferred_host` where.
    """

    job_id: str
    time_limit_seconds: float
    turn_limit_seconds: float
    queue_limit_seconds: float | None
    publishes_only: bool
    preferred_host: str | None


@workflow.defn(name=CODE_JOB)
class CodeJobWorkflow:
    """Runs one code job to its end; every step can be taken up again on another lease."""

    @workflow.init
    def __init__(self, job: CodeJobInput) -> None:
        self._job_id = job.job_id
        self._publishes_only = job.publishes_only
        self._slot = Slot(
            job.job_id,
            queue_limit=seconds(job.queue_limit_seconds),
            preferred_host=job.preferred_host,
            needs_claude=not job.publishes_only,
        )
        job_limit = timedelta(seconds=job.time_limit_seconds)
        turn_limit = timedelta(seconds=job.turn_limit_seconds)
        self._steps = JobSteps(job.job_id, self._slot, job_limit, turn_limit)
        self.host_with_work: str | None = None
        self._created_branch = False
        self._published: PublishResult | None = None

    @workflow.signal(name=GRANT_SIGNAL)
    def slot_granted(self, grant: SlotGrant) -> None:
        """Learn which machine holds the slot."""
        self._slot.granted(grant)

    @workflow.run
    async def run(self, job: CodeJobInput) -> JobResult:
        """Return how the job ended."""
        try:
            ending = completed(job.job_id, await self._slot.work(self._deliver))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            # A job always ends with a status and a reason.
            started = self._slot.last_grant is not None
            ending = ended_early(job.job_id, error, started=started)
        return await shield_until_done(self._end(ending))

    async def _end(self, ending: FinishJobInput) -> JobResult:
        result = await self._steps.finish(ending)
        # The store decides: a job can be cancelled when it is already done here.
        if result.status is JobStatus.CANCELLED:
            await self._withdraw()
        return result

    async def _deliver(self, grant: SlotGrant) -> Outcome:
        """Go on from what earlier leases reached, to the pull request."""
        if self._published is None:
            self._published = await self._work_and_publish(grant)
            self._slot.needs_claude = False
        if self._published.sha is None:
            return Outcome.NO_CHANGES
        self._slot.go_on()
        show("Opening the pull request", grant)
        await perform(
            PullRequestActivities.open_pull_request,
            OpenInput(self._slot.key, self._published.sha),
            grant.task_queue,
            PULL_REQUEST,
        )
        return Outcome.PULL_REQUEST

    async def _work_and_publish(self, grant: SlotGrant) -> PublishResult:
        is_done = self._publishes_only or self.host_with_work == grant.host_id
        prepared = await self._steps.prepare(grant, for_claude=not is_done)
        # A branch that this job has pushed before its machine was lost looks like an older one.
        self._created_branch |= not prepared.continues_branch
        if self._publishes_only:
            self.host_with_work = grant.host_id
        elif self._is_to_work(grant, prepared):
            self._slot.host_claude_finished_on = None
            await self._steps.run_claude(grant, turn=1)
            self.host_with_work = self._slot.host_claude_finished_on = grant.host_id
        self._slot.go_on()
        show("Publishing", grant)
        return await perform(
            WorkspaceActivities.publish,
            PublishInput(self._slot.key),
            grant.task_queue,
            PUBLISH,
        )

    def _is_to_work(self, grant: SlotGrant, prepared: PrepareResult) -> bool:
        """Tell whether Claude has not finished here, or its work is gone."""
        if self.host_with_work != grant.host_id or not prepared.was_there:
            return True
        # The worktree that is there now may be one in which it was interrupted.
        return self._slot.host_claude_finished_on is None

    async def _withdraw(self) -> None:
        """Take back what a cancelled job had published, or may have.

        Its branch is deleted only when the work is kept elsewhere: on the machine where it was
        done, which another may have taken the place of.
        """
        if self.host_with_work is None:
            return
        last = self._slot.last_grant
        is_kept = (
            self._steps.has_cleaned_up and last is not None and last.host_id == self.host_with_work
        )
        deletes_branch = self._created_branch and is_kept
        try:
            await perform(
                PullRequestActivities.withdraw,
                WithdrawInput(self._job_id, deletes_branch),
                RECORDS_TASK_QUEUE,
                WITHDRAW,
            )
        except ActivityError as error:
            workflow.logger.warning("What the job published is still there: %s", error.cause)
