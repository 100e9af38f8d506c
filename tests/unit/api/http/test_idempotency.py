"""`Idempotency-Key` of jobs and retries."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from domain.jobs import JobStatus, JobType
from domain.names.ids import new_id
from tests.unit.api.calls import BEARER, Api
from tests.unit.api.keyed_requests import (
    KEY,
    REUSED,
    counted_claims,
    is_replay,
    jobs,
    new_job,
    outcome,
    post,
)


class TestRepeatedRequests:
    async def test_job_is_created_once(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
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

    async def test_replay_is_the_first_answer(self, api: Api) -> None:
        """Even after the job has changed."""
        body = await new_job(api)
        first = await post(api, "/jobs", body)
        await api.post(f"/jobs/{first.json()['id']}/cancel")
        assert outcome(await post(api, "/jobs", body)) == outcome(first)

    async def test_requests_without_a_key_are_independent(self, api: Api) -> None:
        body = await new_job(api, jobType="task")
        ids = [(await api.post("/jobs", body, 201))["id"] for _ in range(2)]
        assert len(set(ids)) == 2

    async def test_another_key_creates_another_job(self, api: Api) -> None:
        body = await new_job(api, jobType="task")
        answers = [await post(api, "/jobs", body, key=key) for key in ("a", "b", "A")]
        assert len({answer.json()["id"] for answer in answers}) == 3

    @pytest.mark.parametrize("job_type", JobType)
    async def test_twenty_concurrent_requests_get_the_same_answer(
        self, api: Api, job_type: JobType
    ) -> None:
        body = await new_job(api, jobType=job_type)
        answers = await asyncio.gather(*(post(api, "/jobs", body) for _ in range(20)))
        assert len({outcome(answer) for answer in answers}) == 1
        assert answers[0].status_code == 201
        assert [is_replay(answer) for answer in answers].count(False) == 1
        assert await jobs(api) == [answers[0].json()["id"]]

    async def test_retry_is_created_once(self, api: Api) -> None:
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
    async def test_another_body_is_refused(self, api: Api, change: dict[str, Any]) -> None:
        body = await new_job(api)
        await post(api, "/jobs", body)
        answer = await post(api, "/jobs", {**body, **change})
        assert (answer.status_code, answer.json()) == (422, REUSED)
        assert len(await jobs(api)) == 1

    async def test_another_start_of_a_retry_is_refused(self, api: Api) -> None:
        original = await api.seed_job(await api.add_owner(), status=JobStatus.FAILED)
        await post(api, f"/jobs/{original.id}/retry")
        answer = await post(api, f"/jobs/{original.id}/retry", {"from": "publish"})
        assert (answer.status_code, answer.json()) == (422, REUSED)

    async def test_whitespace_and_order_do_not_matter(self, api: Api) -> None:
        body = await new_job(api)
        first = await post(api, "/jobs", body)
        upper = {**dict(reversed(body.items())), "clientId": body["clientId"].upper()}
        headers = {**BEARER, "Idempotency-Key": KEY, "Content-Type": "application/json"}
        content = json.dumps(upper, indent=4).encode()
        again = await api.call("POST", "/jobs", content=content, headers=headers)
        assert outcome(again) == outcome(first)

    async def test_retry_with_and_without_an_empty_body(self, api: Api) -> None:
        original = await api.seed_job(await api.add_owner(), status=JobStatus.FAILED)
        first = await post(api, f"/jobs/{original.id}/retry")
        assert outcome(await post(api, f"/jobs/{original.id}/retry", {})) == outcome(first)

    async def test_lone_surrogate(self, api: Api) -> None:
        """The fingerprint must accept it: githubOrg is checked only after the key is claimed."""
        content = b'{"prompt": "x", "branchName": "x", "githubOrg": "\\ud83d", "githubRepo": "x"}'
        headers = {**BEARER, "Idempotency-Key": KEY, "Content-Type": "application/json"}
        answer = await api.call("POST", "/jobs", content=content, headers=headers)
        assert answer.status_code == 400


class TestKeys:
    @pytest.mark.parametrize("key", ["x", "~", "a b", "x" * 255, '"quoted"', "0"])
    async def test_valid_key(self, api: Api, key: str) -> None:
        assert (await post(api, "/jobs", await new_job(api), key=key)).status_code == 201

    @pytest.mark.parametrize(
        "key", [b"", b"x" * 256, b"a\tb", b"a\x7fb", "größe".encode(), b"\xff", b"a\0b"]
    )
    async def test_invalid_key(self, api: Api, key: bytes) -> None:
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

    async def test_two_keys(self, api: Api) -> None:
        headers: Any = [*BEARER.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        answer = await api.call("POST", "/jobs", await new_job(api), headers=headers)
        expected = {"error": "The request has more than one Idempotency-Key header. Send one."}
        assert (answer.status_code, answer.json()) == (400, expected)

    async def test_keys_belong_to_a_path(self, api: Api) -> None:
        client_id = await api.add_owner()
        originals = [await api.seed_job(client_id, status=JobStatus.FAILED) for _ in range(2)]
        paths = [f"/jobs/{original.id}/retry" for original in originals]
        answers = [await post(api, path) for path in paths]
        answers.append(await post(api, "/jobs", {**await new_job(api), "clientId": client_id}))
        assert [answer.status_code for answer in answers] == [201] * 3
        assert len(await jobs(api)) == 5

    async def test_malformed_id_stores_no_key(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claims = counted_claims(api, monkeypatch)
        for job_id in ("x" * 5000, "%00"):
            retry = await post(api, f"/jobs/{job_id}/retry")
            message = await post(api, f"/jobs/{job_id}/message", {"message": "x"})
            assert (retry.status_code, message.status_code) == (400, 400)
        assert claims == []


class TestRefusedRequests:
    """A refused request releases its key for the corrected request."""

    async def test_corrected_request_can_use_the_key(self, api: Api) -> None:
        body = await new_job(api)
        wrong = await post(api, "/jobs", {**body, "branchName": None})
        assert (wrong.status_code, is_replay(wrong)) == (400, False)
        right = await post(api, "/jobs", body)
        assert (right.status_code, is_replay(right)) == (201, False)

    async def test_request_after_a_conflict_can_use_the_key(self, api: Api) -> None:
        body = await new_job(api)
        holder = await api.post("/jobs", body, 201)
        assert (await post(api, "/jobs", body)).status_code == 409
        await api.post(f"/jobs/{holder['id']}/cancel")
        assert (await post(api, "/jobs", body)).status_code == 201

    async def test_unknown_job(self, api: Api) -> None:
        path = f"/jobs/{new_id()}/retry"
        assert [(await post(api, path)).status_code for _ in range(2)] == [404, 404]

    async def test_twenty_concurrent_requests_are_all_refused(self, api: Api) -> None:
        body = {**await new_job(api), "branchName": None}
        answers = await asyncio.gather(*(post(api, "/jobs", body) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {400}
