"""Workers without a cache: every workflow task replays the whole history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from domain.jobs import JobStatus, Outcome
from tests.integration.workflows.harness import Harness, running_harness
from tests.integration.workflows.scripts import Gate, Script
from tests.integration.workflows.server import dev_server
from workflows.steps import JobResult

EVENTS_PER_RUN = 150


@pytest.fixture(scope="module")
async def forgetful() -> AsyncIterator[Harness]:
    """Workflows that are replayed at each step. Temporal suggests early to continue as new."""
    async with (
        dev_server(f"limit.historyCount.suggestContinueAsNew={EVENTS_PER_RUN}") as temporal,
        running_harness(temporal, max_cached_workflows=0) as harness,
    ):
        yield harness


async def test_code_jobs_end_correctly_when_replayed_at_every_step(forgetful: Harness) -> None:
    async def completed() -> JobResult:
        return await (await forgetful.code_job()).result()

    async def moved() -> JobResult:
        script = Script("a", "b")
        gate = Gate()
        script.plan("run_claude", gate)
        job = await forgetful.code_job(script)
        await gate.started()
        script.stop_host()
        return await job.result()

    async def cancelled(step: str) -> JobResult:
        script = Script()
        gate = Gate()
        script.plan(step, gate)
        job = await forgetful.code_job(script)
        await gate.started()
        await job.cancel()
        gate.open()
        return await job.result()

    done = JobResult(JobStatus.COMPLETED, Outcome.PULL_REQUEST)
    assert set(await asyncio.gather(completed(), moved())) == {done}
    steps = ["hold_slot", "run_claude", "open_pull_request", "finish_job"]
    results = await asyncio.gather(*map(cancelled, steps))
    assert {result.status for result in results} == {JobStatus.CANCELLED}


async def test_a_conversation_continues_as_new_before_its_history_is_too_long(
    forgetful: Harness,
) -> None:
    job = await forgetful.task_job()
    await job.called("wait_for_user")
    first_run = (await job.handle.describe()).run_id
    sent = []
    for turn in range(2, 6):
        sent.append(await job.send())
        await job.called("wait_for_user", turn)
    last_run = await job.handle.describe()
    assert last_run.run_id != first_run
    assert (last_run.history_length or 0) < 2 * EVENTS_PER_RUN
    assert job.script.seen == sent
    await job.complete()
    assert await job.result() == JobResult(JobStatus.COMPLETED, Outcome.ANSWERED)
