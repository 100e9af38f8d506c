"""`Idempotency-Key` of messages."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from domain.errors import DependencyUnavailable
from domain.jobs import JobStatus, JobType, Phase
from domain.messages import MessageType, NewMessage
from tests.unit.api.calls import START, Api
from tests.unit.api.keyed_requests import (
    OUTAGE,
    REUSED,
    is_replay,
    outcome,
    post,
    reached,
)
from tests.unit.api.live import Live, eventually


class TestMessages:
    async def converse(self, live: Live) -> str:
        job = await live.api.add_job(await live.api.add_owner(), jobType="task")
        await live.wait_for(job["id"], "waiting_for_user")
        return str(job["id"])

    async def sent(self, api: Api, job_id: str) -> list[str]:
        lines = (await api.get(f"/jobs/{job_id}/messages"))["messages"]
        return [line["id"] for line in lines if line["type"] == "user_input"]

    async def test_message_is_sent_once(self, live: Live) -> None:
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

    async def test_replay_after_the_conversation_has_ended(self, live: Live) -> None:
        job_id = await self.converse(live)
        path, body = f"/jobs/{job_id}/message", {"message": "And then?"}
        first = await post(live.api, path, body)
        await live.api.post(f"/jobs/{job_id}/complete")
        await live.wait_for(job_id, "completed")
        assert outcome(await post(live.api, path, body)) == outcome(first)
        late = await post(live.api, path, body, key="another")
        assert (late.status_code, late.json()) == (400, {"error": "Job is not running"})

    @pytest.mark.usefixtures("immediate_takeover")
    async def test_message_without_a_stored_answer_is_not_sent_again(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The repeated request finds the message in the store, even after the job's end."""
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

        monkeypatch.setattr(api.app.state.dependencies.dispatch, "send_message", deliver)
        with monkeypatch.context() as patch:
            patch.setattr(api.store, "answer_key", fail)
            assert (await post(api, path, body)).status_code == 503
        await api.change_job(job.id, status=JobStatus.COMPLETED, phase=None)
        again = await post(api, path, body)
        assert (again.status_code, [again.json()["messageId"]]) == (200, sent)

    async def test_failed_delivery_releases_the_key(self, without_temporal: Api) -> None:
        job = await without_temporal.seed_job(
            await without_temporal.add_owner(), job_type=JobType.TASK, status=JobStatus.RUNNING
        )
        path = f"/jobs/{job.id}/message"
        for text in ("one", "one", "another"):
            assert (await post(without_temporal, path, {"message": text})).status_code == 503
        await without_temporal.change_job(job.id, status=JobStatus.COMPLETED, phase=None)
        for text in ("one", "another"):
            assert (await post(without_temporal, path, {"message": text})).status_code == 400

    @pytest.mark.usefixtures("immediate_takeover")
    async def test_failed_delivery_does_not_release_a_shared_key(
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

        monkeypatch.setattr(api.app.state.dependencies.dispatch, "send_message", deliver)
        slow = asyncio.create_task(post(api, path, body))
        await eventually(lambda: reached(handed, 1), "it is held")
        assert (await post(api, path, body)).status_code == 503
        let_go.set()
        first = await slow
        again = await post(api, path, body)
        assert (outcome(again), is_replay(again)) == (outcome(first), True)
        assert handed == [first.json()["messageId"]] * 2

    @pytest.mark.usefixtures("immediate_takeover")
    async def test_delivery_with_unknown_outcome_keeps_the_key(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The workflow may still accept the message, so the repeated request has the same id."""
        monkeypatch.setattr("temporal.job_commands.UPDATE_TIMEOUT", timedelta(milliseconds=300))
        job = await api.add_job(await api.add_owner(), jobType="task")
        await api.change_job(job["id"], status=JobStatus.RUNNING, phase=Phase.WORKING)
        path, body = f"/jobs/{job['id']}/message", {"message": "x"}
        send = api.app.state.dependencies.dispatch.send_message
        sent: list[str] = []

        async def watched(job_id: str, message_id: str) -> None:
            sent.append(message_id)
            await send(job_id, message_id)

        monkeypatch.setattr(api.app.state.dependencies.dispatch, "send_message", watched)
        for _ in range(2):
            assert (await post(api, path, body)).status_code == 500
        assert len(sent) == 2
        assert len(set(sent)) == 1
