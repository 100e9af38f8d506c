"""POST /jobs/:id/retry with `from` set to `publish`."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient

from domain.jobs import JobOptions, JobStatus, JobType
from tests.unit.api.calls import Api
from tests.unit.api.jobs.test_patch import ended, keep, publications

PUBLISH = {"from": "publish"}


class TestPublishOnlyRetry:
    async def test_new_job_publishes(self, api: Api, parked: TemporalClient) -> None:
        options = JobOptions(draft=True, labels=("bot",))
        original = await ended(api, options=options, priority=2)
        await keep(api, original)
        answer = await api.post(f"/jobs/{original}/retry", PUBLISH, 201)
        assert answer["originalJobId"] == original
        assert re.fullmatch(r"feature/x-retry-\d{13}", answer["branchName"])
        job = await api.get(f"/jobs/{answer['id']}")
        assert (job["retry_of"], job["retry_from"]) == (original, "publish")
        assert (job["draft"], job["labels"], job["priority"]) == (True, ["bot"], 2)
        assert (job["status"], job["job_type"]) == ("queued", "code")
        described = await parked.get_workflow_handle(f"job-{job['id']}").describe()
        assert described.workflow_type == "CodeJob"

    @pytest.mark.parametrize("body", [None, {}, {"from": None}])
    async def test_retry_without_from_starts_from_the_beginning(self, api: Api, body: Any) -> None:
        original = await ended(api)
        await keep(api, original)
        answer = await api.post(f"/jobs/{original}/retry", body, 201)
        job = await api.get(f"/jobs/{answer['id']}")
        assert (job["retry_of"], job["retry_from"]) == (original, None)

    @pytest.mark.parametrize("start", ["push", "", "PUBLISH", 7, ["publish"], True])
    async def test_unknown_start(self, api: Api, start: Any) -> None:
        original = await ended(api)
        await keep(api, original)
        reason = await api.refusal(400, "POST", f"/jobs/{original}/retry", {"from": start})
        assert reason == 'from: must be "publish", or left out to start from the beginning.'

    async def test_task_job_is_refused(self, api: Api) -> None:
        original = await ended(api, job_type=JobType.TASK)
        await keep(api, original)
        assert await api.refusal(400, "POST", f"/jobs/{original}/retry", PUBLISH) == (
            "A task job has nothing to publish. Leave `from` out to start the conversation again."
        )

    async def test_job_without_kept_work_is_refused(self, api: Api) -> None:
        original = await ended(api)
        assert await api.refusal(400, "POST", f"/jobs/{original}/retry", PUBLISH) == (
            "No work of this job is kept that could be published, or its host has not saved it "
            "yet. Try again in a minute, or leave `from` out to run Claude again."
        )

    @pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED])
    async def test_job_that_did_not_fail_is_refused(self, api: Api, status: JobStatus) -> None:
        original = await ended(api, status)
        await keep(api, original)
        assert await api.refusal(400, "POST", f"/jobs/{original}/retry", PUBLISH) == (
            f"Only failed and cancelled jobs can be retried; this one is {status}."
        )
        assert (await api.get("/jobs"))["total"] == 1

    async def test_repeated_retries_publish_the_same_work(
        self, api: Api, parked: TemporalClient
    ) -> None:
        original = await ended(api, result="Claude's words.")
        await keep(api, original)
        retried = original
        for _ in range(3):
            answer = await api.post(f"/jobs/{retried}/retry", PUBLISH, 201)
            assert answer["originalJobId"] == retried
            retried = answer["id"]
            job = await api.get(f"/jobs/{retried}")
            assert (job["retry_of"], job["retry_from"]) == (original, "publish")
            assert (job["host"], job["result"]) == ("mill", "Claude's words.")
            await api.post(f"/jobs/{retried}/cancel")

    async def test_retry_of_retries_without_work_finds_the_producer(self, api: Api) -> None:
        original = await ended(api, result="Claude's words.")
        await keep(api, original)
        last = (await publications(api, original))[-1]
        answer = await api.post(f"/jobs/{last}/retry", PUBLISH, 201)
        assert answer["originalJobId"] == last
        job = await api.get(f"/jobs/{answer['id']}")
        assert (job["retry_of"], job["host"]) == (original, "mill")
        assert job["result"] == "Claude's words."

    async def test_nearest_kept_work_is_published(self, api: Api) -> None:
        original = await ended(api)
        _, second, third = await publications(api, original)
        await keep(api, original)
        await keep(api, second, host="other")
        answer = await api.post(f"/jobs/{third}/retry", PUBLISH, 201)
        job = await api.get(f"/jobs/{answer['id']}")
        assert (job["retry_of"], job["host"]) == (second, "other")

    async def test_work_before_a_full_retry_is_not_published(self, api: Api) -> None:
        original = await ended(api)
        await keep(api, original)
        full_retry = await ended(api, retry_of=original)
        last = (await publications(api, full_retry))[-1]
        reason = await api.refusal(400, "POST", f"/jobs/{last}/retry", PUBLISH)
        assert "No work of this job is kept" in reason

    async def test_cycle_of_retries(self, api: Api) -> None:
        first, second = await publications(api, await ended(api), count=2)
        with closing(sqlite3.connect(api.path)) as database, database:
            database.execute("UPDATE agent_jobs SET retry_of = ? WHERE id = ?", (second, first))
        reason = await api.refusal(400, "POST", f"/jobs/{first}/retry", PUBLISH)
        assert "No work of this job is kept" in reason
