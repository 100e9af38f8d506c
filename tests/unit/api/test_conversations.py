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
GONE = {
    "message": "Job is not accepting messages (not interactive or already finished).",
    "complete": "Job is not interactive or already finished.",
}
RUNNING: dict[str, Any] = {"status": JobStatus.RUNNING, "phase": Phase.WORKING}
BOTH = pytest.mark.parametrize(("end", "body"), [("message", {"message": "x"}), ("complete", None)])


async def add_running(api: Api, job_type: JobType) -> str:
    """A job that runs as far as its row says, and whose workflow nobody works on."""
    job = await api.add_job(await api.add_owner(), jobType=job_type.value)
    await api.change_job(job["id"], **RUNNING)
    return str(job["id"])


async def converse(live: Live, prompt: str = "Why?") -> str:
    job = await live.api.add_job(await live.api.add_owner(), jobType="task", prompt=prompt)
    await live.wait_for(job["id"], "working" if HOLD in prompt else "waiting_for_user")
    return str(job["id"])


async def user_messages(api: Api, job_id: str) -> list[str]:
    transcript = (await api.get(f"/jobs/{job_id}/messages"))["messages"]
    return [line["content"] for line in transcript if line["type"] == "user_input"]


class TestSending:
    """POST /jobs/:id/message."""

    async def test_it_needs_the_secret(self, api: Api) -> None:
        await api.needs_secret("POST", f"/jobs/{new_id()}/message")

    async def test_a_conversation_goes_on(self, live: Live) -> None:
        job_id = await converse(live)
        answer = await live.api.post(f"/jobs/{job_id}/message", {"message": "Und dann? 🚀"})
        assert set(answer) == {"id", "messageSent", "messageId"}
        assert (answer["id"], answer["messageSent"]) == (job_id, True)
        assert is_id(answer["messageId"])
        # It is in the transcript when the answer comes, not some time later.
        (line,) = [
            line
            for line in (await live.api.get(f"/jobs/{job_id}/messages"))["messages"]
            if line["type"] == "user_input"
        ]
        assert (line["id"], line["content"]) == (answer["messageId"], "Und dann? 🚀")
        await eventually(lambda: has_turns(live, job_id, 2), "a second turn")
        assert live.turns(job_id) == [[], [answer["messageId"]]]

    async def test_during_a_turn(self, live: Live) -> None:
        job_id = await converse(live, f"Why? {HOLD}")
        for text in ("first", "second"):
            await live.api.post(f"/jobs/{job_id}/message", {"message": text})
        assert await user_messages(live.api, job_id) == ["first", "second"]
        live.let_go(job_id)
        await eventually(lambda: has_turns(live, job_id, 2), "a second turn")
        assert [len(ids) for ids in live.turns(job_id)] == [0, 2]

    async def test_many_at_once_are_each_taken_once(self, live: Live) -> None:
        job_id = await converse(live, f"Why? {HOLD}")
        texts = [f"message {number}" for number in range(10)]
        path = f"/jobs/{job_id}/message"
        await asyncio.gather(*(live.api.post(path, {"message": text}) for text in texts))
        assert sorted(await user_messages(live.api, job_id)) == texts

    async def test_the_longest_message(self, live: Live) -> None:
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
    async def test_a_message_that_cannot_be_one(self, api: Api, message: Any, reason: str) -> None:
        given = await api.refusal(400, "POST", f"/jobs/{new_id()}/message", {"message": message})
        assert given == f"message: {reason}"

    async def test_no_message(self, api: Api) -> None:
        path = f"/jobs/{new_id()}/message"
        assert await api.refusal(400, "POST", path, {}) == "message is required."
        assert await api.refusal(400, "POST", path, {"text": "x"}) == "message is required."

    async def test_half_a_character(self, api: Api) -> None:
        content = json.dumps({"message": "x"}).replace("x", r"\ud83d").encode()
        headers = {**BEARER, "Content-Type": "application/json"}
        path = f"/jobs/{new_id()}/message"
        response = await api.call("POST", path, content=content, headers=headers)
        assert response.status_code == 400
        assert response.json()["error"].startswith("message: ")

    async def test_the_order_of_the_checks(self, api: Api) -> None:
        """Message, job, status, type: as the predecessor has it."""
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

    async def test_it_needs_the_secret(self, api: Api) -> None:
        await api.needs_secret("POST", f"/jobs/{new_id()}/complete")

    async def test_a_conversation_that_waits_for_its_user(self, live: Live) -> None:
        job_id = await converse(live)
        answer = await live.api.post(f"/jobs/{job_id}/complete")
        assert answer == {"id": job_id, "status": "completing"}
        job = await live.wait_for(job_id, "completed")
        assert (job["outcome"], job["error"]) == ("answered", None)
        transcript = (await live.api.get(f"/jobs/{job_id}/messages"))["messages"]
        assert "The user ended the conversation." in [line["content"] for line in transcript]

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

    async def test_what_was_accepted_before_is_answered(self, live: Live) -> None:
        job_id = await converse(live, f"Why? {HOLD}")
        sent = await live.api.post(f"/jobs/{job_id}/message", {"message": "one more"})
        await live.api.post(f"/jobs/{job_id}/complete")
        live.let_go(job_id)
        await live.wait_for(job_id, "completed")
        assert live.turns(job_id) == [[], [sent["messageId"]]]

    async def test_the_order_of_the_checks(self, api: Api) -> None:
        code = await api.seed_job(await api.add_owner(), status=JobStatus.COMPLETED)
        path = f"/jobs/{code.id}/complete"
        assert await api.refusal(400, "POST", path) == NOT_RUNNING
        await api.change_job(code.id, **RUNNING)
        assert await api.refusal(400, "POST", path) == "Only task jobs support this endpoint"


@BOTH
@pytest.mark.parametrize("status", [status for status in JobStatus if status != "running"])
async def test_a_conversation_that_does_not_run(
    api: Api, status: JobStatus, end: str, body: Any
) -> None:
    job = await api.seed_job(await api.add_owner(), status=status, job_type=JobType.TASK)
    assert await api.refusal(400, "POST", f"/jobs/{job.id}/{end}", body) == NOT_RUNNING


@BOTH
async def test_a_workflow_that_was_terminated_by_hand(
    api: Api, parked: TemporalClient, end: str, body: Any
) -> None:
    """Until the row is healed it says that the job runs."""
    job_id = await add_running(api, JobType.TASK)
    await parked.get_workflow_handle(f"job-{job_id}").terminate()
    assert await api.refusal(400, "POST", f"/jobs/{job_id}/{end}", body) == GONE[end]


@BOTH
async def test_a_workflow_that_nobody_works_on(
    api: Api, monkeypatch: pytest.MonkeyPatch, end: str, body: Any
) -> None:
    monkeypatch.setattr("temporal.job_commands.UPDATE_TIMEOUT", timedelta(milliseconds=300))
    job_id = await add_running(api, JobType.TASK)
    reason = await api.refusal(500, "POST", f"/jobs/{job_id}/{end}", body)
    what = {
        "message": "The message could not be delivered.",
        "complete": "The conversation could not be ended.",
    }
    assert reason.startswith(f"{what[end]} The workflow received it but did not answer")
    assert await user_messages(api, job_id) == []


async def has_turns(live: Live, job_id: str, count: int) -> bool:
    return len(live.turns(job_id)) >= count
