"""POST /jobs/:id/cancel."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus

from domain.job_details import JobDetails
from domain.jobs import FINAL, JobStatus, Phase
from domain.names.ids import new_id
from store.protocol import Guard, JobChanges
from temporal import job_commands
from tests.unit.api.calls import Api
from tests.unit.api.live import HOLD, Live, eventually

FINISHED = "Job already finished"


async def test_secret_is_required(api: Api) -> None:
    await api.needs_secret("POST", f"/jobs/{new_id()}/cancel")


async def test_queued_job(api: Api) -> None:
    job = await api.add_job(await api.add_owner())
    answer = await api.post(f"/jobs/{job['id']}/cancel")
    assert answer == {"id": job["id"], "status": "cancelled", "wasRunning": False}
    shown = await api.get(f"/jobs/{job['id']}")
    assert (shown["status"], shown["phase"], shown["error"]) == ("cancelled", None, None)
    assert shown["completed_at"]
    assert (await api.get("/queue"))["totals"] == {"running": 0, "waiting": 0, "queued": 0}


@pytest.mark.parametrize(
    "phase", [Phase.PREPARING, Phase.WORKING, Phase.WAITING_FOR_USER, Phase.WAITING_FOR_SLOT]
)
async def test_running_job(api: Api, phase: Phase) -> None:
    client_id = await api.add_owner()
    job = await api.seed_job(client_id, status=JobStatus.RUNNING, phase=phase)
    answer = await api.post(f"/jobs/{job.id}/cancel")
    assert answer == {"id": job.id, "status": "cancelled", "wasRunning": True}
    shown = await api.get(f"/jobs/{job.id}")
    assert (shown["status"], shown["phase"]) == ("cancelled", "cleaning_up")


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_finished_job(api: Api, status: JobStatus) -> None:
    job = await api.seed_job(await api.add_owner(), status=status, phase=None)
    before = await api.get(f"/jobs/{job.id}")
    assert await api.refusal(400, "POST", f"/jobs/{job.id}/cancel") == FINISHED
    assert await api.get(f"/jobs/{job.id}") == before


async def test_second_cancel_is_refused(api: Api) -> None:
    job = await api.add_job(await api.add_owner())
    await api.post(f"/jobs/{job['id']}/cancel")
    assert await api.refusal(400, "POST", f"/jobs/{job['id']}/cancel") == FINISHED


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
async def test_one_of_twenty_concurrent_cancels_succeeds(api: Api, status: JobStatus) -> None:
    job = await api.seed_job(await api.add_owner(), status=status)
    path = f"/jobs/{job.id}/cancel"
    answers = await asyncio.gather(*(api.call("POST", path) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    (done,) = [answer.json() for answer in answers if answer.is_success]
    assert done["wasRunning"] is (status is JobStatus.RUNNING)


async def test_job_that_starts_during_the_cancel(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts between any two answers of the store."""
    read, update = api.store.get_job, api.store.update_job
    for moment in ("read", "update"):
        job = await api.seed_job(await api.add_owner())

        async def start(job_id: str) -> None:
            changes: JobChanges = {"status": JobStatus.RUNNING, "phase": Phase.PREPARING}
            await update(job_id, changes, Guard(frozenset({JobStatus.QUEUED})))

        async def read_then_start(job_id: str, moment: str = moment) -> JobDetails | None:
            details = await read(job_id)
            if moment == "read":
                await start(job_id)
            return details

        async def update_then_start(job_id: str, changes: JobChanges, when: Guard) -> bool:
            done = await update(job_id, changes, when)
            await start(job_id)
            return done

        monkeypatch.setattr(api.store, "get_job", read_then_start)
        monkeypatch.setattr(api.store, "update_job", update_then_start)
        answer = await api.post(f"/jobs/{job.id}/cancel")
        assert answer["wasRunning"] is (moment == "read")


async def test_workflow_is_cancelled(api: Api, parked: TemporalClient) -> None:
    job = await api.add_job(await api.add_owner())
    await api.post(f"/jobs/{job['id']}/cancel")
    history = await parked.get_workflow_handle(f"job-{job['id']}").fetch_history()
    kinds = [event.WhichOneof("attributes") for event in history.events]
    assert "workflow_execution_cancel_requested_event_attributes" in kinds


async def test_workflow_that_an_operator_terminates(
    api: Api,
    parked: TemporalClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is terminated while the cancel waits for its end."""
    monkeypatch.setattr(job_commands, "CANCEL_WAIT", timedelta(seconds=20))
    caplog.set_level(logging.WARNING, "temporal.job_commands")
    job = await api.add_job(await api.add_owner(), jobType="task")
    handle = parked.get_workflow_handle(f"job-{job['id']}")
    cancelling = asyncio.create_task(api.post(f"/jobs/{job['id']}/cancel"))

    async def is_cancel_requested() -> bool:
        history = await handle.fetch_history()
        return any(
            event.HasField("workflow_execution_cancel_requested_event_attributes")
            for event in history.events
        )

    await eventually(is_cancel_requested, "the workflow is asked to stop")
    await handle.terminate()
    assert (await cancelling)["status"] == "cancelled"
    assert "Its workflow had ended with an error" in caplog.text


class TestWithWorkers:
    async def test_running_code_job(self, live: Live) -> None:
        job = await live.api.add_job(await live.api.add_owner(), prompt=f"x {HOLD}")
        await live.wait_for(job["id"], "working")
        answer = await live.api.post(f"/jobs/{job['id']}/cancel")
        assert answer == {"id": job["id"], "status": "cancelled", "wasRunning": True}
        shown = await live.api.get(f"/jobs/{job['id']}?includeMessages=true")
        # The call waits for the end of the job.
        assert (shown["status"], shown["phase"]) == ("cancelled", None)
        assert shown["messages"][-1]["content"] == "Job cancelled."

    async def test_queued_job_behind_a_running_job(self, live: Live) -> None:
        client_id = await live.api.add_owner()
        running = await live.api.add_job(client_id, prompt=f"x {HOLD}")
        await live.wait_for(running["id"], "working")
        queued = await live.api.add_job(client_id)
        assert queued["position"] == 1
        answer = await live.api.post(f"/jobs/{queued['id']}/cancel")
        assert answer == {"id": queued["id"], "status": "cancelled", "wasRunning": False}
        live.let_go(running["id"])
        done = await live.wait_for(running["id"], "completed")
        assert done["outcome"] == "no_changes"
        assert live.turns(queued["id"]) == []

    async def test_waiting_conversation(self, live: Live) -> None:
        job = await live.api.add_job(await live.api.add_owner(), jobType="task")
        await live.wait_for(job["id"], "waiting_for_user")
        answer = await live.api.post(f"/jobs/{job['id']}/cancel")
        assert (answer["status"], answer["wasRunning"]) == ("cancelled", True)
        assert await live.status(job["id"]) is WorkflowExecutionStatus.COMPLETED
        path = f"/jobs/{job['id']}/message"
        reason = await live.api.refusal(400, "POST", path, {"message": "x"})
        assert reason == "Job is not running"

    async def test_job_that_was_just_created(self, live: Live) -> None:
        for job_type in ("code", "task"):
            job = await live.api.add_job(await live.api.add_owner(), jobType=job_type)
            assert (await live.api.post(f"/jobs/{job['id']}/cancel"))["status"] == "cancelled"
            assert await live.status(job["id"]) is WorkflowExecutionStatus.COMPLETED
            assert (await live.api.get(f"/jobs/{job['id']}"))["status"] == "cancelled"
