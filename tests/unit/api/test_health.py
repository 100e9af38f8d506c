"""GET /health."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from domain.errors import DependencyFailed, DependencyUnavailable
from domain.jobs import JobStatus, Phase
from domain.timestamps import utc_now
from tests.unit.api.calls import Api

NO_STORE = "The store does not answer."
NO_TEMPORAL = "Temporal does not answer."
NO_WORKER = "No worker is running."


async def health(api: Api, status: int) -> dict[str, Any]:
    response = await api.call("GET", "/health", headers={})
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    assert set(answer["queue"]) == {"running", "waiting", "queued", "maxConcurrent"}
    assert set(answer["claude"]) == {"authenticated", "version", "loginType"}
    assert set(answer["git"]) == {"authenticated", "user"}
    assert set(answer["sandbox"]) == {"mode", "ok", "network", "credentialHidden"}
    return answer


async def test_everything_works(api: Api) -> None:
    await api.report_host(
        slots=2,
        claude_version="2.0.76",
        claude_authenticated=True,
        claude_login_type="api_key",
        git_authenticated=True,
        git_user="octocat",
        sandbox="on",
        sandbox_ok=True,
        sandbox_network="internet",
        credential_hidden=True,
    )
    client_id = await api.add_owner()
    await api.seed_job(client_id, status=JobStatus.RUNNING, phase=Phase.WORKING)
    await api.seed_job(client_id, status=JobStatus.RUNNING, phase=Phase.WAITING_FOR_USER)
    for _ in range(3):
        await api.seed_job(client_id)
    assert await health(api, 200) == {
        "status": "ok",
        "queue": {"running": 1, "waiting": 1, "queued": 3, "maxConcurrent": 2},
        "claude": {"authenticated": True, "version": "2.0.76", "loginType": "api_key"},
        "git": {"authenticated": True, "user": "octocat"},
        "store": {"ok": True},
        "temporal": {"ok": True},
        "sandbox": {"mode": "on", "ok": True, "network": "internet", "credentialHidden": True},
        "workers": {"ok": True, "count": 1},
    }


ISOLATED = {
    "sandbox": "on",
    "sandbox_ok": True,
    "sandbox_network": "none",
    "credential_hidden": True,
}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            {"sandbox": "landlock", "sandbox_network": "host"},
            {"mode": "landlock", "network": "host"},
        ),
        ({"sandbox": "off"}, {"mode": "off"}),
        ({"sandbox_ok": False}, {"ok": False}),
        ({"sandbox_network": "hosts"}, {"network": "hosts"}),
        ({"credential_hidden": False}, {"credentialHidden": False}),
    ],
)
async def test_sandbox_shows_the_weakest_isolation(
    api: Api, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], expected: dict[str, Any]
) -> None:
    await api.report_host(id="a", **ISOLATED)
    both = {"mode": "on", "ok": True, "network": "none", "credentialHidden": True}
    assert (await health(api, 200))["sandbox"] == both
    await api.report_host(id="b", **{**ISOLATED, **other})
    # The report of an earlier process of a host does not count.
    await api.report_host(id="a", last_seen=utc_now() - timedelta(seconds=5))
    monkeypatch.setattr("api.health_checks.CACHED_FOR", timedelta(0))
    assert (await health(api, 200))["sandbox"] == both | expected


async def test_without_a_worker(api: Api) -> None:
    await api.report_host(last_seen=utc_now() - timedelta(seconds=11))
    answer = await health(api, 503)
    assert (answer["status"], answer["error"]) == ("error", NO_WORKER)
    assert answer["workers"] == {"ok": False, "count": 0}
    assert answer["claude"] == {"authenticated": False, "version": None, "loginType": None}
    nothing = {"mode": None, "ok": False, "network": None, "credentialHidden": False}
    assert answer["sandbox"] == nothing


async def test_logged_in_host_is_shown(api: Api) -> None:
    await api.report_host(id="a", claude_version="1")
    await api.report_host(id="b", claude_version="2", claude_authenticated=True)
    answer = await health(api, 200)
    assert (answer["claude"]["version"], answer["workers"]["count"]) == ("2", 2)
    assert answer["queue"]["maxConcurrent"] == 4


async def test_no_host_is_logged_in(api: Api) -> None:
    """The server is up: jobs fail with their own error."""
    await api.report_host(claude_version="2.0.76")
    answer = await health(api, 200)
    assert answer["claude"] == {"authenticated": False, "version": "2.0.76", "loginType": None}


async def test_newer_process_of_a_host_counts(api: Api) -> None:
    await api.report_host(claude_version="old", last_seen=utc_now() - timedelta(seconds=5))
    await api.report_host(claude_version="new")
    answer = await health(api, 200)
    assert (answer["claude"]["version"], answer["workers"]["count"]) == ("new", 1)


async def test_temporal_is_down(without_temporal: Api) -> None:
    await without_temporal.report_host()
    began = time.monotonic()
    answer = await health(without_temporal, 503)
    assert time.monotonic() - began < 4
    assert (answer["error"], answer["temporal"]) == (NO_TEMPORAL, {"ok": False})
    assert answer["store"] == {"ok": True}


@pytest.mark.parametrize("kind", [DependencyUnavailable, DependencyFailed])
async def test_store_is_down(
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[DependencyUnavailable] | type[DependencyFailed],
) -> None:
    async def fail(*arguments: object) -> None:
        raise kind("/srv/data/orchestrator.db did not answer.", "store")

    monkeypatch.setattr(api.store, "live_hosts", fail)
    answer = await health(api, 503)
    assert (answer["error"], answer["store"]) == (NO_STORE, {"ok": False})
    assert answer["queue"] == {
        "running": None,
        "waiting": None,
        "queued": None,
        "maxConcurrent": 0,
    }


async def test_store_hangs(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(limit: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(api.store, "queue", hang)
    monkeypatch.setattr("api.health_checks.ANSWER_WITHIN", timedelta(milliseconds=100))
    assert (await health(api, 503))["error"] == NO_STORE


async def test_everything_is_down(without_temporal: Api) -> None:
    await without_temporal.store.close()
    assert (await health(without_temporal, 503))["error"] == f"{NO_STORE} {NO_TEMPORAL}"


class Readings:
    """Counts the reads of the queue from the store."""

    def __init__(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.begun = asyncio.Event()
        self._read = api.store.queue
        monkeypatch.setattr(api.store, "queue", self._counted)

    async def _counted(self, limit: int) -> object:
        self.count += 1
        self.begun.set()
        await asyncio.sleep(0.02)
        return await self._read(limit)


async def test_concurrent_calls_share_a_reading(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = Readings(api, monkeypatch)
    await api.report_host()
    answers = await asyncio.gather(*(health(api, 200) for _ in range(50)))
    await health(api, 200)
    assert readings.count == 1
    assert all(answer == answers[0] for answer in answers)


async def test_reading_is_cached_for_a_second(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = Readings(api, monkeypatch)
    await health(api, 503)
    monkeypatch.setattr("api.health_checks.CACHED_FOR", timedelta(0))
    await api.report_host()
    await health(api, 200)
    assert readings.count == 2


async def test_cancelled_call_does_not_cancel_the_reading(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = Readings(api, monkeypatch)
    leaving = asyncio.create_task(health(api, 503))
    await readings.begun.wait()
    staying = asyncio.create_task(health(api, 503))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying)["error"] == NO_WORKER
    assert readings.count == 1


async def test_failed_reading_is_not_cached(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(limit: int) -> None:
        raise RuntimeError("a secret detail")

    with monkeypatch.context() as broken:
        broken.setattr(api.store, "queue", crash)
        assert "secret" not in await api.refusal(500, "GET", "/health")
    monkeypatch.setattr("api.health_checks.CACHED_FOR", timedelta(0))
    await health(api, 503)
