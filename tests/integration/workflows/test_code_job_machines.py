"""Code jobs whose machine is lost: what is done again elsewhere, and what never is."""

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
from tests.integration.workflows.lab import Lab, StartedJob
from tests.integration.workflows.machines import task_queue
from tests.integration.workflows.scripts import Gate, Script, fail, give
from workflows import policies
from workflows.steps import JobResult

DONE = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)
STEPS = ["prepare", "run_claude", "publish", "open_pull_request"]


async def lose_at(lab: Lab, step: str, *machines: str, crash: bool = False) -> StartedJob:
    """A job whose first machine ends while the step runs there."""
    script = Script(*machines)
    finished = {
        "publish": PublishResult("c0ffee"),
        "open_pull_request": OpenPullRequestResult(1, "https://x"),
    }
    gate = Gate(give(finished.get(step)))
    script.plan(step, gate)
    job = await lab.code_job(script)
    await gate.begun()
    if crash:
        script.crash_machine()
        return job
    script.stop_machine()
    if step in finished:
        # Such a step is not left half done: it ends after the workflow has given it up.
        await job.gave_up(step)
        gate.open()
    return job


def leases(script: Script, activity: str) -> list[int]:
    """The number of the lease in each input of an activity."""
    return [request.lease.number for request in script.requests[activity]]


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
async def test_the_same_machine_goes_on_where_it_was(lab: Lab, crash: bool) -> None:
    async def at(step: str) -> None:
        script = (job := await lose_at(lab, step, "a", "a-restarted", crash=crash)).script
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
async def test_another_machine_has_to_run_claude_again_until_the_push(
    lab: Lab, crash: bool
) -> None:
    async def at(step: str) -> None:
        script = (job := await lose_at(lab, step, "a", "b", crash=crash)).script
        assert await job.result() == DONE
        expected = {"prepare": [2], "run_claude": [1, 2], "publish": [1, 2]}[step]
        assert leases(script, "run_claude") == expected
        assert leases(script, "publish")[-1] == 2
        attempts = [request.attempt for request in script.requests["run_claude"]]
        assert attempts == list(range(1, len(expected) + 1))

    # Of a push on a machine that stops it may be known that it has happened.
    await asyncio.gather(*map(at, STEPS[:3] if crash else STEPS[:2]))


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
async def test_after_the_push_another_machine_only_opens_the_pull_request(
    lab: Lab, crash: bool
) -> None:
    script = (job := await lose_at(lab, "open_pull_request", "a", "b", crash=crash)).script
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


async def test_machines_are_told_whether_claude_is_needed(lab: Lab) -> None:
    """So that finished work waits for no usage limit of Claude's."""

    async def at(step: str) -> tuple[bool, str | None]:
        # Of a push on a machine that stops it may be known that it has happened.
        job = await lose_at(lab, step, "a", "a-restarted", crash=True)
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


async def test_work_that_is_gone_from_its_machine_needs_claude_again(lab: Lab) -> None:
    script = Script()
    gone = PrepareResult("b" * 40, continues_branch=False, existed=False)
    script.plan("prepare", give(gone), give(gone))
    lost = fail(LeaseLost("The lease is lost."))
    script.plan("run_claude", give(), lost)
    script.plan("publish", lost)
    job = await lab.code_job(script)
    await job.called("hold_slot", 3)
    finished = [request.host_claude_finished_on for request in script.requests["hold_slot"]]
    assert finished == [None, "a", None]
    assert await job.result() == DONE
    # What it was interrupted in is not published as if it were all.
    assert script.count("run_claude") == 3


async def test_a_machine_that_is_gone_once_it_has_granted_is_passed_by(lab: Lab) -> None:
    script = Script("gone", "a")
    job = await lab.code_job(script)
    assert await job.result() == DONE
    assert leases(script, "hold_slot") == [1, 2]
    assert leases(script, "prepare") == [2]


async def test_a_machine_that_dies_at_the_end_leaves_its_worktree_to_the_sweep(lab: Lab) -> None:
    script = Script()
    script.plan("stop_work", *[Gate()] * 2)
    script.plan("clean_up", *[Gate()] * 3)
    script.plan("release_slot", *[Gate()] * 2)
    script.plan("find_host_queue", give(None))
    job = await lab.code_job(script)
    await job.called("stop_work")
    script.crash_machine()
    assert await job.result() == DONE
    assert script.count("forget_workspace") == 1
    assert script.count("finish_job") == 1


async def test_what_a_dead_process_left_is_removed_by_its_successor(lab: Lab) -> None:
    script = Script()
    script.plan("clean_up", Gate())
    script.plan("find_host_queue", give(task_queue("a-restarted")))
    job = await lab.code_job(script)
    await job.called("clean_up")
    script.crash_machine()
    assert await job.result() == DONE
    assert script.requests["find_host_queue"] == [FindHostQueueInput("a")]
    assert script.count("clean_up") == 2
    assert script.count("forget_workspace") == 0


@pytest.mark.failure(FailureCode.HOST_LOST)
async def test_a_job_that_loses_five_machines_fails(lab: Lab) -> None:
    script = Script()
    gates = [Gate() for _ in range(policies.MAX_HOST_LOSSES)]
    script.plan("run_claude", *gates)
    job = await lab.code_job(script)
    for gate in gates:
        await gate.begun()
        script.stop_machine()
    sentence = FailureCode.HOST_LOST.sentence
    assert await job.result() == JobResult(JobStatus.FAILED, None, FailureCode.HOST_LOST, sentence)
    assert script.count("hold_slot") == len(gates)
    assert script.work[-2:] == ["finish_job", "clean_up"]


async def test_a_branch_stays_the_jobs_own_after_it_was_pushed(lab: Lab) -> None:
    """On the next machine it looks like one that was there before."""
    script = Script("a", "b")
    script.plan(
        "prepare",
        give(PrepareResult("b" * 40, False, existed=True)),
        give(PrepareResult("b" * 40, True, existed=True)),
    )
    first, second = Gate(), Gate()
    script.plan("publish", first)
    script.plan("open_pull_request", second)
    job = await lab.code_job(script)
    await first.begun()
    script.crash_machine()
    await second.begun()
    await job.cancel()
    second.open()
    await job.result()
    [request] = script.requests["withdraw"]
    assert request.delete_branch


async def test_a_job_that_has_ended_gets_no_slot_and_ends(lab: Lab) -> None:
    script = Script()
    script.row = JobStatus.CANCELLED
    script.plan("hold_slot", fail(JobEnded("The job has ended.")))
    job = await lab.code_job(script)
    assert await job.result() == JobResult(JobStatus.CANCELLED)
    assert script.calls == ["hold_slot", "finish_job"]
    assert not script.endings[0].needs_cleanup


async def test_a_later_lease_is_asked_for_above_the_present_one(lab: Lab) -> None:
    script = Script()
    script.plan("hold_slot", fail(LeaseLost("The job was granted another slot.", 7)))
    job = await lab.code_job(script)
    assert await job.result() == DONE
    assert leases(script, "hold_slot") == [1, 8]
    assert leases(script, "publish") == [8]


async def test_a_grant_of_an_earlier_lease_comes_too_late(lab: Lab) -> None:
    script = Script()
    second = Gate()
    script.plan("hold_slot", fail(LeaseLost("Another slot.", 1)), second)
    job = await lab.code_job(script)
    await second.begun()
    await job.handle.signal(GRANT_SIGNAL, SlotGrant(1, "gone", task_queue("gone")))
    await job.handle.signal(GRANT_SIGNAL, SlotGrant(2, "b", task_queue("b")))
    await job.called("hold_slot", 3)
    assert await job.result() == DONE
    # The grant of lease 2 was taken up at once, and refused by a machine that knew nothing of it.
    assert leases(script, "hold_slot") == [1, 2, 3]
    events = (await job.handle.fetch_history()).events
    queues = {event.activity_task_scheduled_event_attributes.task_queue.name for event in events}
    assert task_queue("b") in queues
    assert task_queue("gone") not in queues


async def test_a_machine_that_lost_its_disk_runs_claude_again(lab: Lab) -> None:
    script = Script()
    made = PrepareResult("b" * 40, continues_branch=False, existed=False)
    script.plan("prepare", give(made), give(made))
    script.plan("publish", fail(LeaseLost("The lease is lost.")))
    job = await lab.code_job(script)
    assert (await job.result()).status is JobStatus.COMPLETED
    assert script.count("run_claude") == 2
