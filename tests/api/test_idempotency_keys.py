"""`Idempotency-Key`: what is asked for again is done once, and answered as the first time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from api import idempotency
from domain.clock import utc_now
from domain.errors import Conflict, DependencyUnavailable
from domain.ids import new_id
from domain.jobs import Job, JobStatus, JobType, Phase
from domain.messages import MessageType, NewMessage
from store.protocol import KeyedRequest
from tests.api.calls import BEARER, START, Api
from tests.api.live import Live, eventually

KEY = "3f6f5a0b nightly #7"
REUSED = {
    "error": "The Idempotency-Key was used with another request body. Send the same body, or a "
    "new key."
}
OUTAGE = DependencyUnavailable("The store did not answer. Try again.", "store")


async def post(
    api: Api, path: str, body: Any = None, key: str = KEY, **options: Any
) -> httpx.Response:
    headers = {**BEARER, "Idempotency-Key": key}
    return await api.call("POST", path, body, headers=headers, **options)


def is_replay(answer: httpx.Response) -> bool:
    replayed = answer.headers.get("Idempotent-Replay")
    assert replayed in {None, "true"}
    return replayed is not None


def outcome(answer: httpx.Response) -> tuple[int, bytes]:
    return answer.status_code, answer.content


async def new_job(api: Api, **more: Any) -> dict[str, Any]:
    """The body of a request for a code job."""
    return {"clientId": await api.add_owner(), "prompt": "x", "branchName": "feature/x", **more}


async def jobs(api: Api) -> list[str]:
    return [job["id"] for job in (await api.get("/jobs"))["jobs"]]


@pytest.fixture
def taken_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "TAKEN_OVER_AFTER", timedelta(0))


class TestRepeating:
    async def test_a_job_is_made_once(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        body = await new_job(api)
        claims = counted_claims(api, monkeypatch)
        first = await post(api, "/jobs", body)
        assert (first.status_code, is_replay(first)) == (201, False)
        assert set(first.json()) == {"id", "status", "position", "branchName", "createdAt"}
        for _ in range(2):
            again = await post(api, "/jobs", body)
            assert outcome(again) == outcome(first)
            assert is_replay(again)
            assert again.headers["content-type"] == first.headers["content-type"]
        assert len(claims) == 3
        assert await jobs(api) == [first.json()["id"]]

    async def test_the_answer_stays_what_it_was(self, api: Api) -> None:
        """Though the job goes on: what it does now is told by GET /jobs/:id."""
        body = await new_job(api)
        first = await post(api, "/jobs", body)
        await api.post(f"/jobs/{first.json()['id']}/cancel")
        assert outcome(await post(api, "/jobs", body)) == outcome(first)

    async def test_without_a_key_nothing_is_remembered(self, api: Api) -> None:
        body = await new_job(api, jobType="task")
        ids = [(await api.post("/jobs", body, 201))["id"] for _ in range(2)]
        assert len(set(ids)) == 2

    async def test_another_key_asks_for_another_job(self, api: Api) -> None:
        body = await new_job(api, jobType="task")
        answers = [await post(api, "/jobs", body, key=key) for key in ("a", "b", "A")]
        assert len({answer.json()["id"] for answer in answers}) == 3

    @pytest.mark.parametrize("job_type", JobType)
    async def test_of_twenty_at_once_all_get_the_same(self, api: Api, job_type: JobType) -> None:
        body = await new_job(api, jobType=job_type)
        answers = await asyncio.gather(*(post(api, "/jobs", body) for _ in range(20)))
        assert len({outcome(answer) for answer in answers}) == 1
        assert answers[0].status_code == 201
        assert [is_replay(answer) for answer in answers].count(False) == 1
        assert await jobs(api) == [answers[0].json()["id"]]

    async def test_a_retry_is_made_once(self, api: Api) -> None:
        original = await api.seed_job(await api.add_owner(), status=JobStatus.FAILED)
        answers = [
            await post(api, f"/jobs/{job_id}/retry")
            for job_id in (original.id, original.id, original.id.upper())
        ]
        assert len({outcome(answer) for answer in answers}) == 1
        assert [is_replay(answer) for answer in answers] == [False, True, True]
        assert len(await jobs(api)) == 2


class TestBodies:
    @pytest.mark.parametrize(
        "change", [{"prompt": "y"}, {"branchName": "feature/y"}, {"priority": 1}]
    )
    async def test_another_body(self, api: Api, change: dict[str, Any]) -> None:
        body = await new_job(api)
        await post(api, "/jobs", body)
        answer = await post(api, "/jobs", {**body, **change})
        assert (answer.status_code, answer.json()) == (422, REUSED)
        assert len(await jobs(api)) == 1

    async def test_another_start_of_a_retry(self, api: Api) -> None:
        original = await api.seed_job(await api.add_owner(), status=JobStatus.FAILED)
        await post(api, f"/jobs/{original.id}/retry")
        answer = await post(api, f"/jobs/{original.id}/retry", {"from": "publish"})
        assert (answer.status_code, answer.json()) == (422, REUSED)

    async def test_another_spelling_is_the_same_body(self, api: Api) -> None:
        body = await new_job(api)
        first = await post(api, "/jobs", body)
        upper = {**dict(reversed(body.items())), "clientId": body["clientId"].upper()}
        headers = {**BEARER, "Idempotency-Key": KEY, "Content-Type": "application/json"}
        content = json.dumps(upper, indent=4).encode()
        again = await api.call("POST", "/jobs", content=content, headers=headers)
        assert outcome(again) == outcome(first)

    async def test_a_retry_without_a_body_and_one_of_nothing(self, api: Api) -> None:
        original = await api.seed_job(await api.add_owner(), status=JobStatus.FAILED)
        first = await post(api, f"/jobs/{original.id}/retry")
        assert outcome(await post(api, f"/jobs/{original.id}/retry", {})) == outcome(first)

    async def test_half_a_character(self, api: Api) -> None:
        """It can stand in a name that is checked only when the key is claimed."""
        content = b'{"prompt": "x", "branchName": "x", "githubOrg": "\\ud83d", "githubRepo": "x"}'
        headers = {**BEARER, "Idempotency-Key": KEY, "Content-Type": "application/json"}
        answer = await api.call("POST", "/jobs", content=content, headers=headers)
        assert answer.status_code == 400


class TestKeys:
    @pytest.mark.parametrize("key", ["x", "~", "a b", "x" * 255, '"quoted"', "0"])
    async def test_any_printable_text(self, api: Api, key: str) -> None:
        assert (await post(api, "/jobs", await new_job(api), key=key)).status_code == 201

    @pytest.mark.parametrize(
        "key", [b"", b"x" * 256, b"a\tb", b"a\x7fb", "größe".encode(), b"\xff", b"a\0b"]
    )
    async def test_what_is_none(self, api: Api, key: bytes) -> None:
        original = await api.seed_job(await api.add_owner(), status=JobStatus.FAILED)
        message = {"message": "x"}
        for path, body in (
            ("/jobs", await new_job(api)),
            (f"/jobs/{original.id}/retry", None),
            (f"/jobs/{original.id}/message", message),
        ):
            headers: Any = {**BEARER, b"Idempotency-Key": key}
            answer = await api.call("POST", path, body, headers=headers)
            expected = "Idempotency-Key: must be 1 to 255 printable ASCII characters."
            assert (answer.status_code, answer.json()) == (400, {"error": expected})
        assert await jobs(api) == [original.id]

    async def test_two_of_them(self, api: Api) -> None:
        headers: Any = [*BEARER.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        answer = await api.call("POST", "/jobs", await new_job(api), headers=headers)
        expected = {"error": "Idempotency-Key is there twice. Send one."}
        assert (answer.status_code, answer.json()) == (400, expected)

    async def test_each_path_has_its_own(self, api: Api) -> None:
        client_id = await api.add_owner()
        originals = [await api.seed_job(client_id, status=JobStatus.FAILED) for _ in range(2)]
        paths = [f"/jobs/{original.id}/retry" for original in originals]
        answers = [await post(api, path) for path in paths]
        answers.append(await post(api, "/jobs", {**await new_job(api), "clientId": client_id}))
        assert [answer.status_code for answer in answers] == [201] * 3
        assert len(await jobs(api)) == 5

    async def test_a_path_without_an_id_is_refused_before_it_is_stored(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claims = counted_claims(api, monkeypatch)
        for job_id in ("x" * 5000, "%00"):
            retry = await post(api, f"/jobs/{job_id}/retry")
            message = await post(api, f"/jobs/{job_id}/message", {"message": "x"})
            assert (retry.status_code, message.status_code) == (400, 400)
        assert claims == []


class TestRefusals:
    """A refused request gives its key back, for the corrected one."""

    async def test_a_request_that_is_corrected(self, api: Api) -> None:
        body = await new_job(api)
        wrong = await post(api, "/jobs", {**body, "branchName": None})
        assert (wrong.status_code, is_replay(wrong)) == (400, False)
        right = await post(api, "/jobs", body)
        assert (right.status_code, is_replay(right)) == (201, False)

    async def test_a_conflict_that_is_over(self, api: Api) -> None:
        body = await new_job(api)
        holder = await api.post("/jobs", body, 201)
        assert (await post(api, "/jobs", body)).status_code == 409
        await api.post(f"/jobs/{holder['id']}/cancel")
        assert (await post(api, "/jobs", body)).status_code == 201

    async def test_a_job_that_is_not_there(self, api: Api) -> None:
        path = f"/jobs/{new_id()}/retry"
        assert [(await post(api, path)).status_code for _ in range(2)] == [404, 404]

    async def test_of_twenty_at_once_all_are_refused(self, api: Api) -> None:
        body = {**await new_job(api), "branchName": None}
        answers = await asyncio.gather(*(post(api, "/jobs", body) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {400}


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


class TestMessages:
    async def converse(self, live: Live) -> str:
        job = await live.api.add_job(await live.api.add_owner(), jobType="task")
        await live.wait_for(job["id"], "waiting_for_user")
        return str(job["id"])

    async def sent(self, api: Api, job_id: str) -> list[str]:
        lines = (await api.get(f"/jobs/{job_id}/messages"))["messages"]
        return [line["id"] for line in lines if line["type"] == "user_input"]

    async def test_a_message_is_sent_once(self, live: Live) -> None:
        job_id = await self.converse(live)
        path, body = f"/jobs/{job_id}/message", {"message": "And then?"}
        answers = await asyncio.gather(*(post(live.api, path, body) for _ in range(20)))
        answers.append(await post(live.api, path, body))
        assert len({outcome(answer) for answer in answers}) == 1
        assert answers[0].status_code == 200
        assert [is_replay(answer) for answer in answers].count(False) == 1
        assert await self.sent(live.api, job_id) == [answers[0].json()["messageId"]]
        other = await post(live.api, path, {"message": "Something else"})
        assert (other.status_code, other.json()) == (422, REUSED)

    async def test_it_was_sent_though_the_conversation_is_over_now(self, live: Live) -> None:
        job_id = await self.converse(live)
        path, body = f"/jobs/{job_id}/message", {"message": "And then?"}
        first = await post(live.api, path, body)
        await live.api.post(f"/jobs/{job_id}/complete")
        await live.wait_for(job_id, "completed")
        assert outcome(await post(live.api, path, body)) == outcome(first)
        late = await post(live.api, path, body, key="another")
        assert (late.status_code, late.json()) == (400, {"error": "Job is not running"})

    @pytest.mark.usefixtures("taken_over_at_once")
    async def test_it_was_sent_before_the_answer_was_kept(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The repeat sees it in the transcript, so the job's end does not matter."""
        job = await api.seed_job(
            await api.add_owner(), job_type=JobType.TASK, status=JobStatus.RUNNING
        )
        path, body = f"/jobs/{job.id}/message", {"message": "And then?"}
        sent: list[str] = []

        async def deliver(job_id: str, message_id: str) -> None:
            sent.append(message_id)
            line = NewMessage(message_id, MessageType.USER_INPUT, "And then?", START)
            await api.store.append_messages(job_id, [line])

        async def fail(*arguments: Any) -> None:
            raise OUTAGE

        monkeypatch.setattr(api.app.state.parts.dispatch, "send_message", deliver)
        with monkeypatch.context() as patch:
            patch.setattr(api.store, "answer_key", fail)
            assert (await post(api, path, body)).status_code == 503
        await api.change_job(job.id, status=JobStatus.COMPLETED, phase=None)
        again = await post(api, path, body)
        assert (again.status_code, [again.json()["messageId"]]) == (200, sent)

    async def test_a_failed_delivery_gives_the_key_back(self, cut_off: Api) -> None:
        job = await cut_off.seed_job(
            await cut_off.add_owner(), job_type=JobType.TASK, status=JobStatus.RUNNING
        )
        path = f"/jobs/{job.id}/message"
        for text in ("one", "one", "another"):
            assert (await post(cut_off, path, {"message": text})).status_code == 503
        await cut_off.change_job(job.id, status=JobStatus.COMPLETED, phase=None)
        for text in ("one", "another"):
            assert (await post(cut_off, path, {"message": text})).status_code == 400

    @pytest.mark.usefixtures("taken_over_at_once")
    async def test_a_failed_delivery_leaves_the_key_to_another_that_goes_on(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = await api.seed_job(
            await api.add_owner(), job_type=JobType.TASK, status=JobStatus.RUNNING
        )
        path, body = f"/jobs/{job.id}/message", {"message": "And then?"}
        handed: list[str] = []
        let_go = asyncio.Event()

        async def deliver(job_id: str, message_id: str) -> None:
            handed.append(message_id)
            if len(handed) > 1:
                raise DependencyUnavailable("Temporal does not answer.", "temporal")
            await let_go.wait()

        monkeypatch.setattr(api.app.state.parts.dispatch, "send_message", deliver)
        slow = asyncio.create_task(post(api, path, body))
        await eventually(lambda: reached(handed, 1), "it is held")
        assert (await post(api, path, body)).status_code == 503
        let_go.set()
        first = await slow
        again = await post(api, path, body)
        assert (outcome(again), is_replay(again)) == (outcome(first), True)
        assert handed == [first.json()["messageId"]] * 2

    @pytest.mark.usefixtures("taken_over_at_once")
    async def test_a_delivery_of_which_nothing_is_known_keeps_it(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The workflow may take the message yet; the repeat must not be a second one."""
        monkeypatch.setattr("api.dispatch.UPDATE_TIMEOUT", timedelta(milliseconds=300))
        job = await api.add_job(await api.add_owner(), jobType="task")
        await api.change_job(job["id"], status=JobStatus.RUNNING, phase=Phase.WORKING)
        path, body = f"/jobs/{job['id']}/message", {"message": "x"}
        send = api.app.state.parts.dispatch.send_message
        sent: list[str] = []

        async def watched(job_id: str, message_id: str) -> None:
            sent.append(message_id)
            await send(job_id, message_id)

        monkeypatch.setattr(api.app.state.parts.dispatch, "send_message", watched)
        for _ in range(2):
            assert (await post(api, path, body)).status_code == 500
        assert len(sent) == 2
        assert len(set(sent)) == 1


def counted_claims(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[KeyedRequest]:
    """The claims made from now on, as they are made."""
    made: list[KeyedRequest] = []
    claim = api.store.claim_key

    async def watched(request: KeyedRequest) -> KeyedRequest:
        made.append(request)
        return await claim(request)

    monkeypatch.setattr(api.store, "claim_key", watched)
    return made


async def reached(things: list[Any], count: int) -> bool:
    return len(things) >= count
