"""Code jobs whose host is lost: which steps are repeated, and which are not."""

from __future__ import annotations

import asyncio

import pytest

from activities.job_records import FindHostQueueInput
from activities.pull_requests import OpenPullRequestResult
from activities.slots import GRANT_SIGNAL, SlotGrant
from activities.workspaces import PrepareResult, PublishResult
from domain.errors import JobEnded, LeaseLost
from domain.failures import FailureCode
from domain.jobs import JobStatus, Outcome
from tests.integration.workflows.harness import Harness, StartedJob
from tests.integration.workflows.scripted_hosts import task_queue
from tests.integration.workflows.scripts import Gate, Script, raises, returns
from workflows import policies
from workflows.steps import JobResult

DONE = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)
STEPS = ["prepare", "run_claude", "publish", "open_pull_request"]


async def lose_at(harness: Harness, step: str, *hosts: str, crash: bool = False) -> StartedJob:
    """Return a job whose first host stops while the step runs there."""
    script = Script(*hosts)
    finished = {
        "publish": PublishResult("c0ffee"),
        "open_pull_request": OpenPullRequestResult(1, "https://x"),
    }
    gate = Gate(returns(finished.get(step)))
    script.plan(step, gate)
    job = await harness.code_job(script)
    await gate.started()
    if crash:
        script.crash_host()
        return job
    script.stop_host()
    if step in finished:
        # Such a step is always finished: it ends after the workflow has cancelled it.
        await job.gave_up(step)
        gate.open()
    return job


def leases(script: Script, activity: str) -> list[int]:
    """The number of the lease in each input of an activity."""
    return [request.lease.number for request in script.requests[activity]]


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
async def test_the_same_host_continues_from_the_last_step(harness: Harness, crash: bool) -> None:
    async def at(step: str) -> None:
        script = (job := await lose_at(harness, step, "a", "a-restarted", crash=crash)).script
        assert await job.result() == DONE
        assert script.count("hold_slot") == 2
        assert script.count("requeue") == 1
        for earlier in STEPS[1 : STEPS.index(step)]:
            assert script.count(earlier) == 1, f"{earlier} was done again after {step}"
        assert script.work[-2:] == ["finish_job", "clean_up"]
        assert leases(script, "open_pull_request")[-1] == 2
        assert leases(script, "release_slot") == [2]

    await asyncio.gather(*map(at, STEPS))


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
async def test_another_host_runs_claude_again_if_nothing_was_pushed(
    harness: Harness, crash: bool
) -> None:
    async def at(step: str) -> None:
        script = (job := await lose_at(harness, step, "a", "b", crash=crash)).script
        assert await job.result() == DONE
        expected = {"prepare": [2], "run_claude": [1, 2], "publish": [1, 2]}[step]
        assert leases(script, "run_claude") == expected
        assert leases(script, "publish")[-1] == 2
        attempts = [request.attempt for request in script.requests["run_claude"]]
        assert attempts == list(range(1, len(expected) + 1))

    # If the host stops in an orderly way, the workflow may learn that the push succeeded.
    await asyncio.gather(*map(at, STEPS[:3] if crash else STEPS[:2]))


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
async def test_after_the_push_another_host_only_opens_the_pull_request(
    harness: Harness, crash: bool
) -> None:
    script = (job := await lose_at(harness, "open_pull_request", "a", "b", crash=crash)).script
    assert await job.result() == DONE
    assert script.work == [
        "prepare",
        "run_claude",
        "publish",
        "open_pull_request",
        "requeue",
        "open_pull_request",
        "finish_job",
        "clean_up",
    ]
    assert leases(script, "open_pull_request") == [1, 2]


async def test_slot_requests_say_whether_claude_is_needed(harness: Harness) -> None:
    """Finished work must not wait for a usage limit."""

    async def at(step: str) -> tuple[bool, str | None]:
        # If the host stops in an orderly way, the workflow may learn that the push succeeded.
        job = await lose_at(harness, step, "a", "a-restarted", crash=True)
        assert await job.result() == DONE
        first, again = job.script.requests["hold_slot"]
        assert (first.needs_claude, first.host_claude_finished_on) == (True, None)
        return again.needs_claude, again.host_claude_finished_on

    assert await asyncio.gather(*map(at, STEPS)) == [
        (True, None),
        (True, None),
        (True, "a"),
        (False, "a"),
    ]


async def test_claude_runs_again_if_the_worktree_is_gone(harness: Harness) -> None:
    script = Script()
    gone = PrepareResult("b" * 40, continues_branch=False, existed=False)
    script.plan("prepare", returns(gone), returns(gone))
    lost = raises(LeaseLost("The lease is lost."))
    script.plan("run_claude", returns(), lost)
    script.plan("publish", lost)
    job = await harness.code_job(script)
    await job.called("hold_slot", 3)
    finished = [request.host_claude_finished_on for request in script.requests["hold_slot"]]
    assert finished == [None, "a", None]
    assert await job.result() == DONE
    # Work in which Claude was interrupted is not published as if it were complete.
    assert script.count("run_claude") == 3


async def test_a_host_that_dies_after_its_grant_is_replaced(harness: Harness) -> None:
    script = Script("gone", "a")
    job = await harness.code_job(script)
    assert await job.result() == DONE
    assert leases(script, "hold_slot") == [1, 2]
    assert leases(script, "prepare") == [2]


async def test_a_host_that_dies_at_the_end_leaves_its_worktree_to_the_sweeper(
    harness: Harness,
) -> None:
    script = Script()
    script.plan("stop_work", *[Gate()] * 2)
    script.plan("clean_up", *[Gate()] * 3)
    script.plan("release_slot", *[Gate()] * 2)
    script.plan("find_host_queue", returns(None))
    job = await harness.code_job(script)
    await job.called("stop_work")
    script.crash_host()
    assert await job.result() == DONE
    assert script.count("forget_workspace") == 1
    assert script.count("finish_job") == 1


async def test_the_next_process_of_the_host_cleans_up(harness: Harness) -> None:
    script = Script()
    script.plan("clean_up", Gate())
    script.plan("find_host_queue", returns(task_queue("a-restarted")))
    job = await harness.code_job(script)
    await job.called("clean_up")
    script.crash_host()
    assert await job.result() == DONE
    assert script.requests["find_host_queue"] == [FindHostQueueInput("a")]
    assert script.count("clean_up") == 2
    assert script.count("forget_workspace") == 0


@pytest.mark.failure(FailureCode.HOST_LOST)
async def test_a_job_that_loses_five_hosts_fails(harness: Harness) -> None:
    script = Script()
    gates = [Gate() for _ in range(policies.MAX_HOST_LOSSES)]
    script.plan("run_claude", *gates)
    job = await harness.code_job(script)
    for gate in gates:
        await gate.started()
        script.stop_host()
    sentence = FailureCode.HOST_LOST.sentence
    assert await job.result() == JobResult(JobStatus.FAILED, None, FailureCode.HOST_LOST, sentence)
    assert script.count("hold_slot") == len(gates)
    assert script.work[-2:] == ["finish_job", "clean_up"]


async def test_a_pushed_branch_still_counts_as_created_by_the_job(harness: Harness) -> None:
    """The next host finds the branch and reports it as an existing one."""
    script = Script("a", "b")
    script.plan(
        "prepare",
        returns(PrepareResult("b" * 40, False, existed=True)),
        returns(PrepareResult("b" * 40, True, existed=True)),
    )
    first, second = Gate(), Gate()
    script.plan("publish", first)
    script.plan("open_pull_request", second)
    job = await harness.code_job(script)
    await first.started()
    script.crash_host()
    await second.started()
    await job.cancel()
    second.open()
    await job.result()
    [request] = script.requests["withdraw"]
    assert request.delete_branch


async def test_an_ended_job_gets_no_slot(harness: Harness) -> None:
    script = Script()
    script.row = JobStatus.CANCELLED
    script.plan("hold_slot", raises(JobEnded("The job has ended.")))
    job = await harness.code_job(script)
    assert await job.result() == JobResult(JobStatus.CANCELLED)
    assert script.calls == ["hold_slot", "finish_job"]
    assert not script.endings[0].needs_cleanup


async def test_the_next_lease_number_is_above_the_current_one(harness: Harness) -> None:
    script = Script()
    script.plan("hold_slot", raises(LeaseLost("The job was granted another slot.", 7)))
    job = await harness.code_job(script)
    assert await job.result() == DONE
    assert leases(script, "hold_slot") == [1, 8]
    assert leases(script, "publish") == [8]


async def test_a_grant_for_an_earlier_lease_is_ignored(harness: Harness) -> None:
    script = Script()
    second = Gate()
    script.plan("hold_slot", raises(LeaseLost("Another slot.", 1)), second)
    job = await harness.code_job(script)
    await second.started()
    await job.handle.signal(GRANT_SIGNAL, SlotGrant(1, "gone", task_queue("gone")))
    await job.handle.signal(GRANT_SIGNAL, SlotGrant(2, "b", task_queue("b")))
    await job.called("hold_slot", 3)
    assert await job.result() == DONE
    # The grant of lease 2 was accepted, and then refused by a host that did not hold it.
    assert leases(script, "hold_slot") == [1, 2, 3]
    events = (await job.handle.fetch_history()).events
    queues = {event.activity_task_scheduled_event_attributes.task_queue.name for event in events}
    assert task_queue("b") in queues
    assert task_queue("gone") not in queues


async def test_a_host_that_lost_its_disk_runs_claude_again(harness: Harness) -> None:
    script = Script()
    made = PrepareResult("b" * 40, continues_branch=False, existed=False)
    script.plan("prepare", returns(made), returns(made))
    script.plan("publish", raises(LeaseLost("The lease is lost.")))
    job = await harness.code_job(script)
    assert (await job.result()).status is JobStatus.COMPLETED
    assert script.count("run_claude") == 2
