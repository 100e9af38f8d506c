"""GET /jobs/:id and GET /jobs/:id/messages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.failures import FailureCode, TimeLimit
from domain.jobs import JobStatus, JobType, Phase, Usage
from domain.messages import MessageType, NewMessage
from domain.names.ids import new_id
from tests.unit.api.calls import START, Api, later
from tests.unit.api.jobs.test_routes_list import EMBEDDED, ROW_KEYS

MESSAGE_KEYS = {"id", "job_id", "seq", "type", "content", "created_at"}


async def seed(api: Api, **values: Any) -> str:
    return (await api.seed_job(await api.add_owner(), **values)).id


class TestGettingAJob:
    """GET /jobs/:id."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("GET", f"/jobs/{new_id()}")

    async def test_new_job(self, api: Api) -> None:
        job = await api.get(f"/jobs/{await seed(api)}")
        assert set(job) == ROW_KEYS | EMBEDDED | {"messages"}
        assert (job["status"], job["job_type"], job["messages"]) == ("queued", "code", None)
        assert (job["feature"], job["total_cost_usd"], job["num_turns"]) == (None, None, 0)

    async def test_finished_job(self, api: Api) -> None:
        job_id = await seed(
            api,
            status=JobStatus.FAILED,
            phase=None,
            failure_code=FailureCode.CLAUDE_FAILED,
            error="It broke.",
            result="Half of it.",
            host="mill",
            lease=2,
            exit_code=1,
            started_at=later(1),
            completed_at=START + timedelta(days=1),
            usage=Usage(3, 0.25, 10, 20, 30, 40),
            claude_seconds=12.5,
            files_changed=4,
            resumes_at=later(2),
        )
        job = await api.get(f"/jobs/{job_id}")
        shown = {
            "status": "failed",
            "phase": None,
            "failure_code": "claude_failed",
            "error": "It broke.",
            "result": "Half of it.",
            "host": "mill",
            "lease": 2,
            "exit_code": 1,
            "started_at": "2026-03-01T12:30:16.123Z",
            "resumes_at": "2026-03-01T12:30:17.123Z",
            "completed_at": "2026-03-02T12:30:15.123Z",
            "num_turns": 3,
            "total_cost_usd": 0.25,
            "cache_creation_tokens": 40,
            "claude_seconds": 12.5,
            "files_changed": 4,
        }
        assert {key: job[key] for key in shown} == shown

    @pytest.mark.parametrize("value", ["true", "1", "TRUE", "yes"])
    async def test_with_messages(self, api: Api, value: str) -> None:
        job_id = await seed(api)
        await api.add_lines(job_id, 2)
        messages = (await api.get(f"/jobs/{job_id}", includeMessages=value))["messages"]
        assert [message["content"] for message in messages] == ["line 1", "line 2"]
        assert set(messages[0]) == MESSAGE_KEYS

    @pytest.mark.parametrize("value", ["false", "0", "no"])
    async def test_without_messages(self, api: Api, value: str) -> None:
        job_id = await seed(api)
        await api.add_lines(job_id, 2)
        assert (await api.get(f"/jobs/{job_id}", includeMessages=value))["messages"] is None

    @pytest.mark.parametrize("value", ["banana", "", "2", "null"])
    async def test_invalid_include_messages(self, api: Api, value: str) -> None:
        reason = await api.refusal(400, "GET", f"/jobs/{await seed(api)}?includeMessages={value}")
        assert reason.startswith("includeMessages: Input should be a valid boolean")

    async def test_job_without_messages(self, api: Api) -> None:
        assert (await api.get(f"/jobs/{await seed(api)}?includeMessages=true"))["messages"] == []

    @pytest.mark.parametrize("count", [999, 1000, 1001, 2500])
    async def test_all_messages_are_included(self, api: Api, count: int) -> None:
        job_id = await seed(api)
        await api.add_lines(job_id, count)
        messages = (await api.get(f"/jobs/{job_id}?includeMessages=true"))["messages"]
        assert [message["seq"] for message in messages] == list(range(1, count + 1))
        assert messages[-1]["content"] == f"line {count}"

    async def test_upper_case_id(self, api: Api) -> None:
        job_id = await seed(api)
        assert (await api.get(f"/jobs/{job_id.upper()}"))["id"] == job_id


class TestFailures:
    """The field `failure`."""

    async def failure(self, api: Api, **values: Any) -> Any:
        values = {"status": JobStatus.FAILED, "phase": None, **values}
        job_id = await seed(api, **values)
        job = await api.get(f"/jobs/{job_id}")
        (listed,) = [entry for entry in (await api.get("/jobs"))["jobs"] if entry["id"] == job_id]
        assert listed["failure"] == job["failure"]
        assert job["failure_code"] == values.get("failure_code")
        return job["failure"]

    async def test_every_failure_has_its_remedy(self, api: Api) -> None:
        shown = [
            await self.failure(api, failure_code=code, error="Particulars.") for code in FailureCode
        ]
        assert shown == [
            {
                "code": code,
                "message": "Particulars.",
                "remedy": code.remedy,
                "retryable": code.retryable,
            }
            for code in FailureCode
        ]

    async def test_time_limit_has_its_own_remedy(self, api: Api) -> None:
        code = FailureCode.TIMED_OUT
        shown = [
            await self.failure(api, failure_code=code, clock=clock, error="Too long.")
            for clock in TimeLimit
        ]
        assert shown == [
            {
                "code": "timed_out",
                "message": "Too long.",
                "remedy": clock.remedy,
                "retryable": clock.retryable,
                "clock": clock,
            }
            for clock in TimeLimit
        ]

    async def test_message_without_an_error_is_the_meaning(self, api: Api) -> None:
        failure = await self.failure(api, failure_code=FailureCode.HOST_LOST)
        assert failure["message"] == "The host that ran the job was lost too often."

    async def test_cancelled_job_has_no_failure(self, api: Api) -> None:
        assert await self.failure(api, status=JobStatus.CANCELLED, error="Stopped.") is None


class TestCosts:
    """The field `cost`."""

    @pytest.mark.parametrize(("estimate", "kind"), [(False, "reported"), (True, "estimated")])
    async def test_known_cost(self, api: Api, estimate: bool, kind: str) -> None:
        usage = Usage(cost_usd=0.25)
        job = await api.get(f"/jobs/{await seed(api, usage=usage, cost_is_estimate=estimate)}")
        assert (job["cost"], job["total_cost_usd"]) == ({"usd": 0.25, "kind": kind}, 0.25)

    async def test_unknown_cost_is_null(self, api: Api) -> None:
        job = await api.get(f"/jobs/{await seed(api, cost_is_estimate=True)}")
        assert (job["cost"], job["total_cost_usd"]) == (None, None)


class TestGettingMessages:
    """GET /jobs/:id/messages."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("GET", f"/jobs/{new_id()}/messages")

    async def test_messages_of_every_type(self, api: Api) -> None:
        job_id = await seed(api)
        lines = [NewMessage(new_id(), kind, f"{kind} 🚀", START) for kind in MessageType]
        await api.store.append_messages(job_id, lines)
        assert await api.get(f"/jobs/{job_id}/messages") == {
            "messages": [
                {
                    "id": line.id,
                    "job_id": job_id,
                    "seq": number,
                    "type": line.type,
                    "content": line.content,
                    "created_at": "2026-03-01T12:30:15.123Z",
                }
                for number, line in enumerate(lines, 1)
            ],
            "next_after": None,
        }

    async def test_pages_to_the_end(self, api: Api) -> None:
        job_id = await seed(api)
        await api.add_lines(job_id, 25)
        seen: list[int] = []
        after: int | None = 0
        pages = 0
        while after is not None:
            page = await api.get(f"/jobs/{job_id}/messages", after=after, limit=10)
            seen += [message["seq"] for message in page["messages"]]
            after, pages = page["next_after"], pages + 1
        assert (seen, pages) == (list(range(1, 26)), 3)

    async def test_next_after_is_null_on_a_partial_page(self, api: Api) -> None:
        job_id = await seed(api)
        await api.add_lines(job_id, 10)
        full = await api.get(f"/jobs/{job_id}/messages", limit=10)
        assert (len(full["messages"]), full["next_after"]) == (10, 10)
        assert await api.get(f"/jobs/{job_id}/messages", after=10, limit=10) == {
            "messages": [],
            "next_after": None,
        }

    async def test_default_page_is_a_thousand_messages(self, api: Api) -> None:
        job_id = await seed(api)
        await api.add_lines(job_id, 1001)
        page = await api.get(f"/jobs/{job_id}/messages")
        assert (len(page["messages"]), page["next_after"]) == (1000, 1000)

    async def test_new_messages_after_the_last(self, api: Api) -> None:
        job_id = await seed(api, job_type=JobType.TASK, phase=Phase.WAITING_FOR_USER)
        await api.add_lines(job_id, 3)
        await api.add_lines(job_id, 2, "new")
        page = await api.get(f"/jobs/{job_id}/messages", after=3)
        assert [message["content"] for message in page["messages"]] == ["new 1", "new 2"]

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            ("after=-1", "after: Input should be greater than or equal to 0."),
            ("after=x", "after: Input should be a valid integer"),
            ("after=9007199254740993", "after: Input should be less than or equal to"),
            ("limit=0", "limit: Input should be greater than or equal to 1."),
            ("limit=1001", "limit: Input should be less than or equal to 1000."),
        ],
    )
    async def test_invalid_page(self, api: Api, query: str, reason: str) -> None:
        path = f"/jobs/{await seed(api)}/messages?{query}"
        assert (await api.refusal(400, "GET", path)).startswith(reason)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/{}"),
        ("GET", "/jobs/{}?includeMessages=true"),
        ("GET", "/jobs/{}/messages"),
        ("GET", "/jobs/{}/patch"),
        ("POST", "/jobs/{}/cancel"),
        ("POST", "/jobs/{}/retry"),
        ("POST", "/jobs/{}/complete"),
    ],
)
async def test_unknown_and_malformed_job_id(api: Api, method: str, path: str) -> None:
    assert await api.refusal(404, method, path.format(new_id())) == "Job not found"
    for wrong in ("x", "1", new_id().replace("-", ""), "' OR 1=1", "x" * 100):
        reason = await api.refusal(400, method, path.format(wrong))
        assert reason == f"The job id {wrong[:80]!r} is not a UUID."
