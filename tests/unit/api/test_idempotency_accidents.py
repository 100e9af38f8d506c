"""`Idempotency-Key` when processes die, the store is away, or two requests do the same work."""

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


class TestRequestsThatWereCutOff:
    """A process may die at any point between the claim of a key and its answer."""

    async def cut_off(
        self,
        api: Api,
        monkeypatch: pytest.MonkeyPatch,
        body: Any,
        path: str = "/jobs",
        claimed_at: datetime = START,
    ) -> KeyedRequest:
        """What is left of a request that claimed the key and then died."""
        claims: list[KeyedRequest] = []

        async def fail(request: KeyedRequest) -> KeyedRequest:
            claims.append(request)
            raise OUTAGE

        with monkeypatch.context() as patch:
            patch.setattr(api.store, "claim_key", fail)
            assert (await post(api, path, body)).status_code == 503
        return await api.store.claim_key(replace(claims[0], created_at=claimed_at))

    async def test_before_the_job_was_stored(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        left = await self.cut_off(api, monkeypatch, body)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json()["id"]) == (201, left.resource_id)
        assert outcome(await post(api, "/jobs", body)) == outcome(answer)

    async def test_after_the_job_was_stored(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer is about the job that is there, not about one like it."""
        body = await new_job(api, jobType="task")
        left = await self.cut_off(api, monkeypatch, body)
        job = await api.seed_job(
            body["clientId"], id=left.resource_id, job_type=JobType.TASK, branch_name="task-1"
        )
        answer = (await post(api, "/jobs", body)).json()
        assert (answer["id"], answer["branchName"]) == (job.id, "task-1")
        assert answer["createdAt"] == "2026-03-01T12:30:15.123Z"
        assert await jobs(api) == [job.id]

    async def test_after_the_job_was_stored_and_has_ended(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another holds its branch now, which is no conflict with a job that is there."""
        body = await new_job(api)
        left = await self.cut_off(api, monkeypatch, body)
        await api.seed_job(
            body["clientId"], id=left.resource_id, branch_name="feature/x", status=JobStatus.FAILED
        )
        await api.post("/jobs", body, 201)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json()["id"]) == (201, left.resource_id)

    async def test_after_the_retry_was_stored_and_could_not_be_made_any_more(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client_id = await api.add_owner()
        original = await api.seed_job(client_id, status=JobStatus.FAILED)
        path = f"/jobs/{original.id}/retry"
        left = await self.cut_off(api, monkeypatch, {"from": "publish"}, path)
        await api.seed_job(client_id, id=left.resource_id, retry_of=original.id)
        answer = await post(api, path, {"from": "publish"})
        assert (answer.status_code, answer.json()["id"]) == (201, left.resource_id)

    @pytest.mark.parametrize("refusal", [None, Conflict("Job … already works on the branch.")])
    async def test_while_another_stores_the_job(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, refusal: Conflict | None
    ) -> None:
        """Postgres may see that the branch is held before it sees that this same job holds it."""
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

    async def test_while_another_answers(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        """All give the answer that was first, though it is about another moment."""
        body = await new_job(api)
        create = api.store.create_job
        first = {"id": "a", "status": "queued", "position": 7, "branchName": "x", "createdAt": "b"}

        async def be_overtaken(job: Job) -> None:
            await create(job)
            await api.store.answer_key("POST /jobs", KEY, 201, json.dumps(first))

        monkeypatch.setattr(api.store, "create_job", be_overtaken)
        answers = [(await post(api, "/jobs", body)).json() for _ in range(2)]
        assert answers == [first, first]

    async def test_a_moment_ago_so_its_answer_is_waited_for(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        left = await self.cut_off(api, monkeypatch, body, claimed_at=utc_now())
        looks = counted_claims(api, monkeypatch)
        repeat = asyncio.create_task(post(api, "/jobs", body))
        await eventually(lambda: reached(looks, 2), "it looked twice")
        assert not repeat.done()
        first = {"id": "a", "status": "queued", "position": 7, "branchName": "x", "createdAt": "b"}
        await api.store.answer_key(left.scope, left.key, 201, json.dumps(first))
        answer = await repeat
        assert (answer.status_code, answer.json(), is_replay(answer)) == (201, first, True)
        assert await jobs(api) == []

    async def test_a_moment_ago_and_then_it_was_refused(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        left = await self.cut_off(api, monkeypatch, body, claimed_at=utc_now())
        looks = counted_claims(api, monkeypatch)
        repeat = asyncio.create_task(post(api, "/jobs", body))
        await eventually(lambda: reached(looks, 2), "it looked twice")
        await api.store.release_key(left.scope, left.key, left.resource_id)
        answer = await repeat
        assert (answer.status_code, is_replay(answer)) == (201, False)
        assert await jobs(api) == [answer.json()["id"]] != [left.resource_id]

    async def test_long_ago_and_then_it_was_refused(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It came back just before its repeat took over."""
        body = await new_job(api)
        left = await self.cut_off(api, monkeypatch, body)
        share = api.store.share_key

        async def come_late(*claim: str) -> bool:
            await api.store.release_key(*claim)
            return await share(*claim)

        monkeypatch.setattr(api.store, "share_key", come_late)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, is_replay(answer)) == (201, False)
        assert await jobs(api) == [answer.json()["id"]] != [left.resource_id]

    async def test_long_ago_and_then_it_was_answered(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = await new_job(api)
        await self.cut_off(api, monkeypatch, body)
        share = api.store.share_key
        first = {"id": "a", "status": "queued", "position": 7, "branchName": "x", "createdAt": "b"}

        async def come_late(scope: str, key: str, resource_id: str) -> bool:
            await api.store.answer_key(scope, key, 201, json.dumps(first))
            return await share(scope, key, resource_id)

        monkeypatch.setattr(api.store, "share_key", come_late)
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json(), is_replay(answer)) == (201, first, True)
        assert await jobs(api) == []

    async def test_by_a_clock_that_is_ahead(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The wait is bounded by the own clock too."""
        monkeypatch.setattr(idempotency, "TAKEN_OVER_AFTER", timedelta(milliseconds=50))
        body = await new_job(api)
        left = await self.cut_off(api, monkeypatch, body, claimed_at=utc_now() + timedelta(hours=1))
        answer = await post(api, "/jobs", body)
        assert (answer.status_code, answer.json()["id"]) == (201, left.resource_id)

    async def test_a_key_that_is_forgotten_meanwhile(
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
class Sharer:
    """A request that is held just before it stores the job of this id."""

    job_id: str
    let_go: asyncio.Event
    answer: asyncio.Task[httpx.Response]

    async def goes_on(self) -> httpx.Response:
        self.let_go.set()
        return await self.answer


@pytest.mark.usefixtures("taken_over_at_once")
class TestRequestsThatShareAClaim:
    """A repeat took over from a request that was slow and not cut off."""

    async def two_of_them(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, body: Any
    ) -> list[Sharer]:
        create, held = api.store.create_job, list[tuple[str, asyncio.Event]]()
        sharers: list[Sharer] = []

        async def hold(job: Job) -> None:
            let_go = asyncio.Event()
            held.append((job.id, let_go))
            await let_go.wait()
            await create(job)

        with monkeypatch.context() as patch:
            patch.setattr(api.store, "create_job", hold)
            for count in (1, 2):
                answer = asyncio.create_task(post(api, "/jobs", body))
                await eventually(partial(reached, held, count), "it is held")
                sharers.append(Sharer(*held[-1], answer))
        return sharers

    @pytest.mark.parametrize("refused", [0, 1], ids=["the first", "the second"])
    async def test_one_is_refused_and_the_other_makes_the_job(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, refused: int
    ) -> None:
        """A key that was given back would let a third make another job."""
        body = await new_job(api)
        sharers = await self.two_of_them(api, monkeypatch, body)
        holder = await api.post("/jobs", body, 201)
        assert (await sharers[refused].goes_on()).status_code == 409
        await api.post(f"/jobs/{holder['id']}/cancel")
        made = await sharers[1 - refused].goes_on()
        assert (made.status_code, made.json()["id"]) == (201, sharers[0].job_id)
        await api.post(f"/jobs/{sharers[0].job_id}/cancel")
        again = await post(api, "/jobs", body)
        assert (outcome(again), is_replay(again)) == (outcome(made), True)
        assert set(await jobs(api)) == {holder["id"], sharers[0].job_id}

    async def test_both_are_refused(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        """None knows of the other that it has ended, so the key stays with the id."""
        body = await new_job(api)
        sharers = await self.two_of_them(api, monkeypatch, body)
        holder = await api.post("/jobs", body, 201)
        assert [(await sharer.goes_on()).status_code for sharer in sharers] == [409, 409]
        await api.post(f"/jobs/{holder['id']}/cancel")
        corrected = await post(api, "/jobs", {**body, "branchName": "feature/y"})
        assert (corrected.status_code, corrected.json()) == (422, REUSED)
        again = await post(api, "/jobs", body)
        assert (again.status_code, again.json()["id"]) == (201, sharers[0].job_id)


@pytest.mark.usefixtures("taken_over_at_once")
class TestOutages:
    """503 means that the same request, sent again, does what is left to do."""

    @pytest.mark.parametrize("step", ["claim_key", "create_job", "queue_position", "answer_key"])
    @pytest.mark.parametrize("done", [False, True], ids=["not done", "reply lost"])
    async def test_the_job_is_made_once(
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
            # The place in the queue is not worth an error.
            assert answer.status_code == (201 if step == "queue_position" else 503)
        again = await post(api, "/jobs", body)
        assert (again.status_code, await jobs(api)) == (201, [again.json()["id"]])
        assert outcome(await post(api, "/jobs", body)) == outcome(again)

    @pytest.mark.parametrize("job_type", JobType)
    async def test_of_twenty_that_all_do_the_work_one_job_comes(
        self, api: Api, job_type: JobType
    ) -> None:
        body = await new_job(api, jobType=job_type)
        answers = await asyncio.gather(*(post(api, "/jobs", body) for _ in range(20)))
        assert len({outcome(answer) for answer in answers}) == 1
        assert await jobs(api) == [answers[0].json()["id"]]

    async def test_a_refusal_whose_key_could_not_be_given_back(
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
