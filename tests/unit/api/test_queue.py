"""GET /queue."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.jobs import JobStatus, JobType, Phase
from domain.timestamps import utc_now
from tests.unit.api.calls import Api, later

ENTRY = {"id", "title", "client_id", "branch_name", "job_type"}
EMPTY = {
    "running": [],
    "waiting": [],
    "queued": [],
    "maxConcurrent": 0,
    "totals": {"running": 0, "waiting": 0, "queued": 0},
}


def ids(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["id"] for entry in entries]


async def test_secret_is_required(api: Api) -> None:
    await api.needs_secret("GET", "/queue")


async def test_empty_queue(api: Api) -> None:
    assert await api.get("/queue") == EMPTY


async def test_running_waiting_and_queued_jobs(api: Api) -> None:
    client_id = await api.add_owner()
    started = utc_now() - timedelta(seconds=59)
    running = await api.seed_job(
        client_id, status=JobStatus.RUNNING, phase=Phase.WORKING, title="R", started_at=started
    )
    waiting = await api.seed_job(
        client_id,
        status=JobStatus.RUNNING,
        phase=Phase.WAITING_FOR_USER,
        job_type=JobType.TASK,
        started_at=started,
    )
    queued = await api.seed_job(client_id, title="Q")
    await api.seed_job(client_id, status=JobStatus.COMPLETED, phase=None)
    answer = await api.get("/queue")
    assert set(answer) == set(EMPTY)
    assert answer["totals"] == {"running": 1, "waiting": 1, "queued": 1}
    (shown,) = answer["running"]
    assert set(shown) == ENTRY | {"phase", "started_at", "running_for"}
    assert (shown["id"], shown["title"], shown["phase"]) == (running.id, "R", "working")
    assert shown["running_for"] in {"59s", "1m 0s", "1m 1s"}
    (shown,) = answer["waiting"]
    assert (shown["id"], shown["phase"]) == (waiting.id, "waiting_for_user")
    (shown,) = answer["queued"]
    assert set(shown) == ENTRY | {"created_at", "position"}
    assert (shown["id"], shown["title"], shown["position"]) == (queued.id, "Q", 1)
    assert (shown["client_id"], shown["branch_name"]) == (client_id, queued.branch_name)
    assert shown["created_at"] == "2026-03-01T12:30:15.123Z"


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(seconds=1), "1s"),
        (timedelta(seconds=303), "5m 3s"),
        (timedelta(hours=2, minutes=5), "2h 5m"),
        (timedelta(days=2), "48h 0m"),
        (timedelta(seconds=-60), "0s"),
    ],
)
async def test_running_for(
    api: Api, monkeypatch: pytest.MonkeyPatch, age: timedelta, expected: str
) -> None:
    monkeypatch.setattr("api.queue.utc_now", lambda: later(0) + age)
    job = {"status": JobStatus.RUNNING, "phase": Phase.WORKING, "started_at": later(0)}
    await api.seed_job(await api.add_owner(), **job)
    assert (await api.get("/queue"))["running"][0]["running_for"] == expected


async def test_running_job_without_a_start(api: Api) -> None:
    job = {"status": JobStatus.RUNNING, "phase": Phase.WORKING}
    await api.seed_job(await api.add_owner(), **job)
    (shown,) = (await api.get("/queue"))["running"]
    assert (shown["started_at"], shown["running_for"]) == (None, None)


async def test_positions_match_those_of_the_new_jobs(api: Api) -> None:
    client_id = await api.add_owner()
    posted = [await api.add_job(client_id) for _ in range(4)]
    first = await api.seed_job(client_id, priority=1)
    queued = (await api.get("/queue"))["queued"]
    assert ids(queued) == [first.id, *ids(posted)]
    assert [entry["position"] for entry in queued] == [1, 2, 3, 4, 5]
    assert [entry["position"] for entry in posted] == [1, 2, 3, 4]


async def test_limit_cuts_lists_but_not_totals(api: Api) -> None:
    client_id = await api.add_owner()
    seeded = [(await api.seed_job(client_id, created_at=later(age))).id for age in range(105)]
    for age in range(3):
        await api.seed_job(
            client_id, status=JobStatus.RUNNING, phase=Phase.WORKING, started_at=later(age)
        )
    answer = await api.get("/queue", limit=2)
    assert (ids(answer["queued"]), len(answer["running"])) == (seeded[:2], 2)
    assert answer["totals"] == {"running": 3, "waiting": 0, "queued": 105}
    assert ids((await api.get("/queue"))["queued"]) == seeded[:100]
    assert ids((await api.get("/queue", limit=1000))["queued"]) == seeded


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1.5"])
async def test_invalid_limit(api: Api, limit: str) -> None:
    reason = await api.refusal(400, "GET", f"/queue?limit={limit}")
    assert reason.startswith("limit: Input should be ")


async def test_slots_of_live_hosts(api: Api) -> None:
    """During a restart, only the newer process of a host counts."""
    now = utc_now()
    await api.report_host(id="a", slots=2, last_seen=now - timedelta(seconds=1))
    await api.report_host(id="a", slots=3, last_seen=now)
    await api.report_host(id="b", slots=4)
    await api.report_host(id="gone", slots=100, last_seen=now - timedelta(seconds=60))
    assert (await api.get("/queue"))["maxConcurrent"] == 7
