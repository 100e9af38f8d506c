"""`Idempotency-Key` after crashes, during outages, and with concurrent requests."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from api.http import idempotency
from domain.errors import Conflict
from domain.jobs import Job, JobStatus, JobType
from domain.keyed_requests import KeyedRequest
from domain.timestamps import utc_now
from tests.unit.api.calls import START, Api
from tests.unit.api.keyed_requests import (
    KEY,
    OUTAGE,
    REUSED,
    counted_claims,
    is_replay,
    jobs,
    new_job,
    outcome,
    post,
    reached,
)
from tests.unit.api.live import eventually


class TestInterruptedRequests:
    """A process can die at any point between the claim of a key and the answer."""

    async def interrupted(
        self,
        api: Api,
        monkeypatch: pytest.MonkeyPatch,
        body: Any,
        path: str = "/jobs",
        claimed_at: datetime = START,
    ) -> KeyedRequest:
        """Leave the claim of a request that died."""
        claims: list[KeyedRequest] = []

        async def fail(request: KeyedRequest) -> KeyedRequest:
            claims.append(request)
            raise OUTAGE

        with monkeypatch.context() as patch:
            patch.setattr(api.store, "claim_key", fail)
            assert (await post(api, path, body)).status_code == 503
        return await api.store.claim_key(replace(claims[0], created_at=claimed_at))

    async def test_interrupted_before_the_job_was_stored(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        claim = await self.interrupted(api, monkeypatch, body)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json()["id"]) == (201, claim.resource_id)
        assert outcome(await post(api, "/jobs", body)) == outcome(answer)

    async def test_interrupted_after_the_job_was_stored(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer describes the stored job, not the job that the repeated request built."""
        body = await new_job(api, jobType="task")
        claim = await self.interrupted(api, monkeypatch, body)
        job = await api.seed_job(
            body["clientId"], id=claim.resource_id, job_type=JobType.TASK, branch_name="task-1"
        )
        answer = (await post(api, "/jobs", body)).json()
        assert (answer["id"], answer["branchName"]) == (job.id, "task-1")
        assert answer["createdAt"] == "2026-03-01T12:30:15.123Z"
        assert await jobs(api) == [job.id]

    async def test_interrupted_after_the_job_was_stored_and_has_ended(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another job holds the branch now. That is no conflict, because the job is stored."""
        body = await new_job(api)
        claim = await self.interrupted(api, monkeypatch, body)
        await api.seed_job(
            body["clientId"], id=claim.resource_id, branch_name="feature/x", status=JobStatus.FAILED
        )
        await api.post("/jobs", body, 201)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json()["id"]) == (201, claim.resource_id)

    async def test_interrupted_after_a_retry_that_is_no_longer_possible(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client_id = await api.add_owner()
        original = await api.seed_job(client_id, status=JobStatus.FAILED)
        path = f"/jobs/{original.id}/retry"
        claim = await self.interrupted(api, monkeypatch, {"from": "publish"}, path)
        await api.seed_job(client_id, id=claim.resource_id, retry_of=original.id)
        answer = await post(api, path, {"from": "publish"})
        assert (answer.status_code, answer.json()["id"]) == (201, claim.resource_id)

    @pytest.mark.parametrize("refusal", [None, Conflict("Job … already works on the branch.")])
    async def test_concurrent_request_stores_the_job(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, refusal: Conflict | None
    ) -> None:
        """Postgres may report the branch conflict before it reports the duplicate id."""
        body = await new_job(api, jobType="task")
        create = api.store.create_job

        async def come_second(job: Job) -> None:
            await create(replace(job, branch_name="task-1"))
            if refusal is not None:
                raise refusal

        monkeypatch.setattr(api.store, "create_job", come_second)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json()["branchName"]) == (201, "task-1")
        assert await jobs(api) == [answer.json()["id"]]

    async def test_concurrent_request_answers_first(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All requests get the answer that was stored first."""
        body = await new_job(api)
        create = api.store.create_job
        first = {"id": "a", "status": "queued", "position": 7, "branchName": "x", "createdAt": "b"}

        async def be_overtaken(job: Job) -> None:
            await create(job)
            await api.store.answer_key("POST /jobs", KEY, 201, json.dumps(first))

        monkeypatch.setattr(api.store, "create_job", be_overtaken)
        answers = [(await post(api, "/jobs", body)).json() for _ in range(2)]
        assert answers == [first, first]

    async def test_recent_request_is_waited_for(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        claim = await self.interrupted(api, monkeypatch, body, claimed_at=utc_now())
        looks = counted_claims(api, monkeypatch)
        repeat = asyncio.create_task(post(api, "/jobs", body))
        await eventually(lambda: reached(looks, 2), "it looked twice")
        assert not repeat.done()
        first = {"id": "a", "status": "queued", "position": 7, "branchName": "x", "createdAt": "b"}
        await api.store.answer_key(claim.scope, claim.key, 201, json.dumps(first))
        answer = await repeat
        assert (answer.status_code, answer.json(), is_replay(answer)) == (201, first, True)
        assert await jobs(api) == []

    async def test_recent_request_that_is_refused(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        claim = await self.interrupted(api, monkeypatch, body, claimed_at=utc_now())
        looks = counted_claims(api, monkeypatch)
        repeat = asyncio.create_task(post(api, "/jobs", body))
        await eventually(lambda: reached(looks, 2), "it looked twice")
        await api.store.release_key(claim.scope, claim.key, claim.resource_id)
        answer = await repeat
        assert (answer.status_code, is_replay(answer)) == (201, False)
        assert await jobs(api) == [answer.json()["id"]] != [claim.resource_id]

    async def test_old_request_that_is_refused_at_last(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It continues just before the repeated request takes over."""
        body = await new_job(api)
        claim = await self.interrupted(api, monkeypatch, body)
        share = api.store.share_key

        async def come_late(*claim: str) -> bool:
            await api.store.release_key(*claim)
            return await share(*claim)

        monkeypatch.setattr(api.store, "share_key", come_late)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, is_replay(answer)) == (201, False)
        assert await jobs(api) == [answer.json()["id"]] != [claim.resource_id]

    async def test_old_request_that_is_answered_at_last(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        await self.interrupted(api, monkeypatch, body)
        share = api.store.share_key
        first = {"id": "a", "status": "queued", "position": 7, "branchName": "x", "createdAt": "b"}

        async def come_late(scope: str, key: str, resource_id: str) -> bool:
            await api.store.answer_key(scope, key, 201, json.dumps(first))
            return await share(scope, key, resource_id)

        monkeypatch.setattr(api.store, "share_key", come_late)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json(), is_replay(answer)) == (201, first, True)
        assert await jobs(api) == []

    async def test_request_from_a_clock_that_is_ahead(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The clock of the repeated request limits the wait, too."""
        monkeypatch.setattr(idempotency, "TAKEN_OVER_AFTER", timedelta(milliseconds=50))
        body = await new_job(api)
        claim = await self.interrupted(
            api, monkeypatch, body, claimed_at=utc_now() + timedelta(hours=1)
        )
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json()["id"]) == (201, claim.resource_id)

    async def test_key_that_expires_during_the_request(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        answer_key = api.store.answer_key

        async def forget_first(*arguments: Any) -> KeyedRequest:
            await api.store.forget_keys(utc_now() + timedelta(days=1))
            return await answer_key(*arguments)

        monkeypatch.setattr(api.store, "answer_key", forget_first)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, [answer.json()["id"]]) == (201, await jobs(api))


@dataclass(frozen=True)
class SharedRequest:
    """A request that is paused before it stores its job."""

    job_id: str
    released: asyncio.Event
    answer: asyncio.Task[httpx.Response]

    async def resume(self) -> httpx.Response:
        self.released.set()
        return await self.answer


@pytest.mark.usefixtures("immediate_takeover")
class TestSharedClaims:
    """A repeated request took over from a request that was only slow."""

    async def two_requests(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, body: Any
    ) -> list[SharedRequest]:
        create, paused = api.store.create_job, list[tuple[str, asyncio.Event]]()
        requests: list[SharedRequest] = []

        async def pause(job: Job) -> None:
            released = asyncio.Event()
            paused.append((job.id, released))
            await released.wait()
            await create(job)

        with monkeypatch.context() as patch:
            patch.setattr(api.store, "create_job", pause)
            for count in (1, 2):
                answer = asyncio.create_task(post(api, "/jobs", body))
                await eventually(partial(reached, paused, count), "it is paused")
                requests.append(SharedRequest(*paused[-1], answer))
        return requests

    @pytest.mark.parametrize("refused", [0, 1], ids=["the first", "the second"])
    async def test_one_request_is_refused_and_the_other_creates_the_job(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, refused: int
    ) -> None:
        """A released key would let a third request create another job."""
        body = await new_job(api)
        requests = await self.two_requests(api, monkeypatch, body)
        other_job = await api.post("/jobs", body, 201)
        assert (await requests[refused].resume()).status_code == 409
        await api.post(f"/jobs/{other_job['id']}/cancel")
        created = await requests[1 - refused].resume()
        assert (created.status_code, created.json()["id"]) == (201, requests[0].job_id)
        await api.post(f"/jobs/{requests[0].job_id}/cancel")
        again = await post(api, "/jobs", body)
        assert (outcome(again), is_replay(again)) == (outcome(created), True)
        assert set(await jobs(api)) == {other_job["id"], requests[0].job_id}

    async def test_both_requests_are_refused(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither knows that the other has ended, so the key keeps its id."""
        body = await new_job(api)
        requests = await self.two_requests(api, monkeypatch, body)
        other_job = await api.post("/jobs", body, 201)
        assert [(await request.resume()).status_code for request in requests] == [409, 409]
        await api.post(f"/jobs/{other_job['id']}/cancel")
        corrected = await post(api, "/jobs", {**body, "branchName": "feature/y"})
        assert (corrected.status_code, corrected.json()) == (422, REUSED)
        again = await post(api, "/jobs", body)
        assert (again.status_code, again.json()["id"]) == (201, requests[0].job_id)


@pytest.mark.usefixtures("immediate_takeover")
class TestOutages:
    """After 503, the same request sent again does the remaining work."""

    @pytest.mark.parametrize("step", ["claim_key", "create_job", "queue_position", "answer_key"])
    @pytest.mark.parametrize("done", [False, True], ids=["not done", "reply lost"])
    async def test_job_is_created_once(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, step: str, done: bool
    ) -> None:
        body = await new_job(api)
        real = getattr(api.store, step)

        async def fail(*arguments: Any) -> Any:
            if done:
                await real(*arguments)
            raise OUTAGE

        with monkeypatch.context() as patch:
            patch.setattr(api.store, step, fail)
            answer = await post(api, "/jobs", body)
            # The job is accepted without its position.
            assert answer.status_code == (201 if step == "queue_position" else 503)
        again = await post(api, "/jobs", body)
        assert (again.status_code, await jobs(api)) == (201, [again.json()["id"]])
        assert outcome(await post(api, "/jobs", body)) == outcome(again)

    @pytest.mark.parametrize("job_type", JobType)
    async def test_twenty_concurrent_requests_create_one_job(
        self, api: Api, job_type: JobType
    ) -> None:
        body = await new_job(api, jobType=job_type)
        answers = await asyncio.gather(*(post(api, "/jobs", body) for _ in range(20)))
        assert len({outcome(answer) for answer in answers}) == 1
        assert await jobs(api) == [answers[0].json()["id"]]

    async def test_refused_request_whose_key_cannot_be_released(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = {**await new_job(api), "branchName": None}

        async def fail(*arguments: Any) -> None:
            raise OUTAGE

        with monkeypatch.context() as patch:
            patch.setattr(api.store, "release_key", fail)
            assert (await post(api, "/jobs", body)).status_code == 503
        assert (await post(api, "/jobs", body)).status_code == 400
        corrected = {**body, "branchName": "x"}
        assert (await post(api, "/jobs", corrected)).json() == REUSED
        assert (await post(api, "/jobs", corrected, key="another")).status_code == 201
