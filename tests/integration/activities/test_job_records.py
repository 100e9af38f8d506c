"""Decisions of workflows are recorded once, and never replace a final status."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.job_records import (
    AcceptMessageInput,
    EnqueueTurnInput,
    FindHostQueueInput,
    FindHostQueueResult,
    FinishJobInput,
    FinishJobResult,
    ForgetWorkspaceInput,
    ListHostQueuesInput,
    ListHostQueuesResult,
    RecordActivities,
    RecordCompletionInput,
    RequeueInput,
    WaitForUserInput,
)
from domain.errors import DependencyUnavailable
from domain.failures import FailureCode
from domain.jobs import Job, JobStatus, Outcome, Phase
from domain.messages import MessageType
from domain.timestamps import utc_now
from host.slots.leases import LeaseKey
from tests.integration.activities.outages import Outages
from tests.unit.store.samples import START, UNKNOWN_ID, World, a_host, a_line

RUNNING = JobStatus.RUNNING


@pytest.fixture
def records(world: World) -> RecordActivities:
    return RecordActivities(world.store)


async def messages_of(world: World, job: Job) -> list[str]:
    return [line.content for line in await world.transcript(job)]


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ({"status": JobStatus.COMPLETED, "outcome": Outcome.PULL_REQUEST}, "Job completed."),
        (
            {"status": JobStatus.COMPLETED, "outcome": Outcome.NO_CHANGES},
            "Job completed: Claude made no changes, so there is no pull request.",
        ),
        (
            {
                "status": JobStatus.FAILED,
                "failure_code": FailureCode.GIT_FAILED,
                "error": "git said no.",
            },
            "Job failed: git said no.",
        ),
        ({"status": JobStatus.CANCELLED}, "Job cancelled."),
    ],
)
async def test_the_end_of_a_job_is_recorded_once(
    world: World, records: RecordActivities, ending: dict[str, Any], words: str
) -> None:
    job = await world.add_job(status=RUNNING, phase=Phase.WORKING, lease=1)
    request = FinishJobInput(job.id, needs_cleanup=True, **ending)
    expected = FinishJobResult(ending["status"])
    assert await ActivityEnvironment().run(records.finish_job, request) == expected
    first = await world.read(job)
    assert await ActivityEnvironment().run(records.finish_job, request) == expected
    row = await world.read(job)
    assert row == first
    assert (row.status, row.phase) == (ending["status"], Phase.CLEANING_UP)
    assert (row.outcome, row.failure_code, row.error) == tuple(
        ending.get(name) for name in ("outcome", "failure_code", "error")
    )
    assert row.completed_at is not None
    assert await messages_of(world, job) == [words]


async def test_a_cancelled_job_stays_cancelled(world: World, records: RecordActivities) -> None:
    job = await world.add_job(status=JobStatus.CANCELLED, phase=Phase.CLEANING_UP)
    request = FinishJobInput(job.id, JobStatus.COMPLETED, Outcome.PULL_REQUEST)
    assert await records.finish_job(request) == FinishJobResult(JobStatus.CANCELLED)
    row = await world.read(job)
    assert (row.status, row.phase, row.outcome) == (JobStatus.CANCELLED, Phase.CLEANING_UP, None)
    assert await messages_of(world, job) == ["Job cancelled."]
    unknown = FinishJobInput(UNKNOWN_ID, JobStatus.FAILED)
    assert await records.finish_job(unknown) == FinishJobResult(JobStatus.FAILED)


async def test_the_end_of_a_job_is_recorded_by_the_next_attempt(world: World) -> None:
    outages = Outages(world.store)
    records = RecordActivities(outages.store)
    job = await world.add_job(status=RUNNING, phase=Phase.WORKING)
    outages.fail("update_job", "after")
    outages.fail("append_messages", "after")
    for _ in range(2):
        with pytest.raises(DependencyUnavailable):
            await records.finish_job(FinishJobInput(job.id, JobStatus.COMPLETED, Outcome.ANSWERED))
    await records.finish_job(FinishJobInput(job.id, JobStatus.COMPLETED, Outcome.ANSWERED))
    assert (await world.read(job)).outcome is Outcome.ANSWERED
    assert await messages_of(world, job) == ["Job completed."]


async def test_the_next_turn_is_queued_last(world: World, records: RecordActivities) -> None:
    job = await world.add_job(status=RUNNING, phase=Phase.WAITING_FOR_USER)
    first = await world.add_job()
    await records.enqueue_turn(EnqueueTurnInput(job.id))
    assert [await world.store.queue_position(each.id) for each in (first, job)] == [1, 2]
    ended = await world.add_job(status=JobStatus.CANCELLED, phase=None)
    await records.enqueue_turn(EnqueueTurnInput(ended.id))
    assert (await world.read(ended)).phase is None


async def test_a_job_that_lost_its_host_keeps_its_position(
    world: World, records: RecordActivities
) -> None:
    lost = await world.add_job(status=RUNNING, phase=Phase.WORKING, lease=1, pid=7)
    later = await world.add_job(queued_at=START + timedelta(seconds=1))
    for number in (2, 1, 1):
        await records.requeue(RequeueInput(LeaseKey(lost.id, number)))
    assert [await world.store.queue_position(each.id) for each in (lost, later)] == [1, 2]
    assert (await world.read(lost)).pid is None
    assert len(await messages_of(world, lost)) == 1


async def test_only_a_running_job_waits_for_the_user(
    world: World, records: RecordActivities
) -> None:
    running = await world.add_job(status=RUNNING, phase=Phase.WORKING)
    ended = await world.add_job(status=JobStatus.FAILED, phase=None)
    for job in (running, ended):
        await records.wait_for_user(WaitForUserInput(job.id))
        await records.forget_workspace(ForgetWorkspaceInput(job.id))
    assert (await world.read(running)).phase is Phase.WAITING_FOR_USER
    assert (await world.read(ended)).phase is None


async def test_a_message_is_accepted_once(world: World, records: RecordActivities) -> None:
    job = await world.add_job()
    message = a_line("More, please.", type=MessageType.USER_INPUT)
    await world.store.put_in_inbox(job.id, message)
    for _ in range(2):
        await records.accept_message(AcceptMessageInput(job.id, message.id))
        await records.record_completion(RecordCompletionInput(job.id))
    await records.accept_message(AcceptMessageInput(job.id, UNKNOWN_ID))
    assert await messages_of(world, job) == ["More, please.", "The user ended the conversation."]


async def test_each_host_is_listed_once_with_its_newest_process(
    world: World, records: RecordActivities
) -> None:
    now = utc_now()
    for name, queue, age in (("a", "a-old", 3), ("a", "a-new", 1), ("b", "b", 2), ("c", "c", 180)):
        seen = now - timedelta(seconds=age)
        await world.store.report_host(a_host(id=name, task_queue=queue, last_seen=seen))
    listed = await records.list_host_queues(ListHostQueuesInput(seen_within_seconds=30.0))
    assert listed == ListHostQueuesResult(["a-new", "b"])
    newest = {"a": "a-new", "b": "b", "c": None, "d": None}
    for name, task_queue in newest.items():
        found = await records.find_host_queue(FindHostQueueInput(name))
        assert found == FindHostQueueResult(task_queue)
