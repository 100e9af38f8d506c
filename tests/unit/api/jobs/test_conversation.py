"""POST /jobs/:id/message and POST /jobs/:id/complete."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient

from domain.jobs import JobStatus, JobType, Phase
from domain.messages import MAX_USER_MESSAGE_BYTES
from domain.names.ids import is_id, new_id
from tests.unit.api.calls import BEARER, Api
from tests.unit.api.live import HOLD, Live, eventually

NOT_RUNNING = "Job is not running"
NOT_ACCEPTING = {
    "message": "Job is not accepting messages (not interactive or already finished).",
    "complete": "Job is not interactive or already finished.",
}
RUNNING: dict[str, Any] = {"status": JobStatus.RUNNING, "phase": Phase.WORKING}
BOTH = pytest.mark.parametrize(("end", "body"), [("message", {"message": "x"}), ("complete", None)])


async def add_running(api: Api, job_type: JobType) -> str:
    """A job whose row is running, and whose workflow has no worker."""
    job = await api.add_job(await api.add_owner(), jobType=job_type.value)
    await api.change_job(job["id"], **RUNNING)
    return str(job["id"])


async def converse(live: Live, prompt: str = "Why?") -> str:
    job = await live.api.add_job(await live.api.add_owner(), jobType="task", prompt=prompt)
    await live.wait_for(job["id"], "working" if HOLD in prompt else "waiting_for_user")
    return str(job["id"])


async def user_messages(api: Api, job_id: str) -> list[str]:
    messages = (await api.get(f"/jobs/{job_id}/messages"))["messages"]
    return [line["content"] for line in messages if line["type"] == "user_input"]


class TestSending:
    """POST /jobs/:id/message."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("POST", f"/jobs/{new_id()}/message")

    async def test_message_starts_a_turn(self, live: Live) -> None:
        job_id = await converse(live)
        answer = await live.api.post(f"/jobs/{job_id}/message", {"message": "Und dann? 🚀"})
        assert set(answer) == {"id", "messageSent", "messageId"}
        assert (answer["id"], answer["messageSent"]) == (job_id, True)
        assert is_id(answer["messageId"])
        # The message is stored before the answer.
        (line,) = [
            line
            for line in (await live.api.get(f"/jobs/{job_id}/messages"))["messages"]
            if line["type"] == "user_input"
        ]
        assert (line["id"], line["content"]) == (answer["messageId"], "Und dann? 🚀")
        await eventually(lambda: has_turns(live, job_id, 2), "a second turn")
        assert live.turns(job_id) == [[], [answer["messageId"]]]

    async def test_messages_during_a_turn(self, live: Live) -> None:
        job_id = await converse(live, f"Why? {HOLD}")
        for text in ("first", "second"):
            await live.api.post(f"/jobs/{job_id}/message", {"message": text})
        assert await user_messages(live.api, job_id) == ["first", "second"]
        live.let_go(job_id)
        await eventually(lambda: has_turns(live, job_id, 2), "a second turn")
        assert [len(ids) for ids in live.turns(job_id)] == [0, 2]

    async def test_concurrent_messages_are_each_delivered_once(self, live: Live) -> None:
        job_id = await converse(live, f"Why? {HOLD}")
        texts = [f"message {number}" for number in range(10)]
        path = f"/jobs/{job_id}/message"
        await asyncio.gather(*(live.api.post(path, {"message": text}) for text in texts))
        assert sorted(await user_messages(live.api, job_id)) == texts

    async def test_longest_message(self, live: Live) -> None:
        job_id = await converse(live, f"Why? {HOLD}")
        message = "🚀" * (MAX_USER_MESSAGE_BYTES // 4)
        await live.api.post(f"/jobs/{job_id}/message", {"message": message})
        assert await user_messages(live.api, job_id) == [message]

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            (None, "Input should be a valid string."),
            (7, "Input should be a valid string."),
            ({"text": "x"}, "Input should be a valid string."),
            (True, "Input should be a valid string."),
            ("", "must not be empty."),
            ("\n ", "must not be empty."),
            ("a\0b", "must not contain NUL characters or lone surrogates."),
            ("x" * (MAX_USER_MESSAGE_BYTES + 1), "must be at most 65536 bytes in UTF-8."),
            ("ä" * (MAX_USER_MESSAGE_BYTES // 2) + "x", "must be at most 65536 bytes in UTF-8."),
        ],
    )
    async def test_invalid_message(self, api: Api, message: Any, reason: str) -> None:
        given = await api.refusal(400, "POST", f"/jobs/{new_id()}/message", {"message": message})
        assert given == f"message: {reason}"

    async def test_missing_message(self, api: Api) -> None:
        path = f"/jobs/{new_id()}/message"
        assert await api.refusal(400, "POST", path, {}) == "message is required."
        assert await api.refusal(400, "POST", path, {"text": "x"}) == "message is required."

    async def test_lone_surrogate(self, api: Api) -> None:
        content = json.dumps({"message": "x"}).replace("x", r"\ud83d").encode()
        headers = {**BEARER, "Content-Type": "application/json"}
        path = f"/jobs/{new_id()}/message"
        response = await api.call("POST", path, content=content, headers=headers)
        assert response.status_code == 400
        assert response.json()["error"].startswith("message: ")

    async def test_order_of_the_checks(self, api: Api) -> None:
        """Message, job, status, type: the order of the earlier product."""
        code = await api.seed_job(await api.add_owner(), status=JobStatus.COMPLETED)
        path = f"/jobs/{code.id}/message"
        assert (
            await api.refusal(400, "POST", path, {"message": ""}) == "message: must not be empty."
        )
        body = {"message": "x"}
        assert await api.refusal(404, "POST", f"/jobs/{new_id()}/message", body) == "Job not found"
        assert "is not a UUID" in await api.refusal(400, "POST", "/jobs/x/message", body)
        assert await api.refusal(400, "POST", path, body) == NOT_RUNNING
        await api.change_job(code.id, **RUNNING)
        expected = "Only task jobs support interactive messaging"
        assert await api.refusal(400, "POST", path, body) == expected


class TestCompleting:
    """POST /jobs/:id/complete."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("POST", f"/jobs/{new_id()}/complete")

    async def test_waiting_conversation(self, live: Live) -> None:
        job_id = await converse(live)
        answer = await live.api.post(f"/jobs/{job_id}/complete")
        assert answer == {"id": job_id, "status": "completing"}
        job = await live.wait_for(job_id, "completed")
        assert (job["outcome"], job["error"]) == ("answered", None)
        messages = (await live.api.get(f"/jobs/{job_id}/messages"))["messages"]
        assert "The user ended the conversation." in [line["content"] for line in messages]

    async def test_during_a_turn_which_is_finished(self, live: Live) -> None:
        job_id = await converse(live, f"Why? {HOLD}")
        for _ in range(3):
            answer = await live.api.post(f"/jobs/{job_id}/complete")
            assert answer == {"id": job_id, "status": "completing"}
        assert (await live.api.get(f"/jobs/{job_id}"))["status"] == "running"
        reason = await live.api.refusal(
            400, "POST", f"/jobs/{job_id}/message", {"message": "too late"}
        )
        assert reason.startswith("Job is not accepting messages")
        live.let_go(job_id)
        await live.wait_for(job_id, "completed")
        assert await user_messages(live.api, job_id) == []

    async def test_earlier_messages_are_answered(self, live: Live) -> None:
        job_id = await converse(live, f"Why? {HOLD}")
        sent = await live.api.post(f"/jobs/{job_id}/message", {"message": "one more"})
        await live.api.post(f"/jobs/{job_id}/complete")
        live.let_go(job_id)
        await live.wait_for(job_id, "completed")
        assert live.turns(job_id) == [[], [sent["messageId"]]]

    async def test_order_of_the_checks(self, api: Api) -> None:
        code = await api.seed_job(await api.add_owner(), status=JobStatus.COMPLETED)
        path = f"/jobs/{code.id}/complete"
        assert await api.refusal(400, "POST", path) == NOT_RUNNING
        await api.change_job(code.id, **RUNNING)
        assert await api.refusal(400, "POST", path) == "Only task jobs support this endpoint"


@BOTH
@pytest.mark.parametrize("status", [status for status in JobStatus if status != "running"])
async def test_job_that_is_not_running(api: Api, status: JobStatus, end: str, body: Any) -> None:
    job = await api.seed_job(await api.add_owner(), status=status, job_type=JobType.TASK)
    assert await api.refusal(400, "POST", f"/jobs/{job.id}/{end}", body) == NOT_RUNNING


@BOTH
async def test_workflow_that_an_operator_terminated(
    api: Api, parked: TemporalClient, end: str, body: Any
) -> None:
    """The row says that the job runs until the reconciler corrects it."""
    job_id = await add_running(api, JobType.TASK)
    await parked.get_workflow_handle(f"job-{job_id}").terminate()
    assert await api.refusal(400, "POST", f"/jobs/{job_id}/{end}", body) == NOT_ACCEPTING[end]


@BOTH
async def test_workflow_without_a_worker(
    api: Api, monkeypatch: pytest.MonkeyPatch, end: str, body: Any
) -> None:
    monkeypatch.setattr("temporal.job_commands.UPDATE_TIMEOUT", timedelta(milliseconds=300))
    job_id = await add_running(api, JobType.TASK)
    reason = await api.refusal(500, "POST", f"/jobs/{job_id}/{end}", body)
    failed = {
        "message": "The message could not be delivered.",
        "complete": "The conversation could not be ended.",
    }
    assert reason.startswith(f"{failed[end]} The workflow received it but did not answer")
    assert await user_messages(api, job_id) == []


async def has_turns(live: Live, job_id: str, count: int) -> bool:
    return len(live.turns(job_id)) >= count
