"""A code job: worktree, Claude, commit, push, pull request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.job_records import RECORDS_TASK_QUEUE, FinishJobInput
    from activities.pull_requests import OpenPullRequestInput, PullRequestActivities
    from activities.slots import GRANT_SIGNAL, SlotGrant
    from activities.withdrawals import WithdrawalActivities, WithdrawInput
    from activities.workspaces import (
        PrepareResult,
        PublishInput,
        PublishResult,
        WorkspaceActivities,
    )
    from domain.jobs import JobStatus, Outcome
    from workflows.activity_calls import perform, shield_until_done
    from workflows.policies import OPEN_PULL_REQUEST, PUBLISH, WITHDRAW
    from workflows.slot import Slot
    from workflows.steps import JobResult, JobSteps, completed, ended_early, show
    from workflows.stopwatch import seconds

CODE_JOB = "CodeJob"


@dataclass(frozen=True, slots=True)
class CodeJobInput:
    """A code job and its limits.

    Args:
        job_id: the job.
        time_limit_seconds: the time that it may hold a host, over all leases.
        turn_limit_seconds: the time that Claude may work.
        queue_limit_seconds: each wait for a slot; None is no limit.
        publishes_only: the job publishes work that another job has left; Claude does not run.
        preferred_host: the host that has this work.
    """

    job_id: str
    time_limit_seconds: float
    turn_limit_seconds: float
    queue_limit_seconds: float | None
    publishes_only: bool
    preferred_host: str | None


@workflow.defn(name=CODE_JOB)
class CodeJobWorkflow:
    """Runs one code job to its end. Every step can be repeated under another lease."""

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
        self._host_with_work: str | None = None
        self._created_branch = False
        self._published: PublishResult | None = None

    @workflow.signal(name=GRANT_SIGNAL)
    def slot_granted(self, grant: SlotGrant) -> None:
        """Accept the slot that a host has granted."""
        self._slot.accept(grant)

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
        # The store decides: a job can be cancelled after this workflow has published its work.
        if result.status is JobStatus.CANCELLED:
            await self._withdraw()
        return result

    async def _deliver(self, grant: SlotGrant) -> Outcome:
        """Continue from the last step that an earlier lease finished, up to the pull request."""
        if self._published is None:
            self._published = await self._work_and_publish(grant)
            self._slot.needs_claude = False
        if self._published.sha is None:
            return Outcome.NO_CHANGES
        self._slot.raise_if_cancelled()
        show("Opening the pull request", grant)
        await perform(
            PullRequestActivities.open_pull_request,
            OpenPullRequestInput(self._slot.lease, self._published.sha),
            grant.task_queue,
            OPEN_PULL_REQUEST,
        )
        return Outcome.PULL_REQUEST

    async def _work_and_publish(self, grant: SlotGrant) -> PublishResult:
        has_work = self._publishes_only or self._host_with_work == grant.host_id
        prepared = await self._steps.prepare(grant, for_claude=not has_work)
        # Remembered over all leases: if a host is lost after it has pushed the new branch, the
        # next host finds the branch and reports it as an existing one.
        self._created_branch |= not prepared.continues_branch
        if self._publishes_only:
            self._host_with_work = grant.host_id
        elif self._needs_claude(grant, prepared):
            self._slot.host_claude_finished_on = None
            await self._steps.run_claude(grant, turn=1)
            self._host_with_work = self._slot.host_claude_finished_on = grant.host_id
        self._slot.raise_if_cancelled()
        show("Publishing", grant)
        return await perform(
            WorkspaceActivities.publish,
            PublishInput(self._slot.lease),
            grant.task_queue,
            PUBLISH,
        )

    def _needs_claude(self, grant: SlotGrant, prepared: PrepareResult) -> bool:
        """Return whether Claude has not finished on this host, or its work is gone."""
        if self._host_with_work != grant.host_id or not prepared.existed:
            return True
        # None if Claude started again on this host and was interrupted.
        return self._slot.host_claude_finished_on is None

    async def _withdraw(self) -> None:
        """Undo what a cancelled job has published, or may have published.

        Its branch is deleted only if the work was also salvaged. That happens on the host where
        Claude worked, and another host may have published the work after that.
        """
        if self._host_with_work is None:
            return
        last = self._slot.last_grant
        is_salvaged = (
            self._steps.has_cleaned_up and last is not None and last.host_id == self._host_with_work
        )
        try:
            await perform(
                WithdrawalActivities.withdraw,
                WithdrawInput(self._job_id, delete_branch=self._created_branch and is_salvaged),
                RECORDS_TASK_QUEUE,
                WITHDRAW,
            )
        except ActivityError as error:
            workflow.logger.warning("The job's publication was not withdrawn: %s", error.cause)
