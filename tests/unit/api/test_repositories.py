"""POST /sync, POST /repos/clone and POST /repos/:id/clone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from domain.names.ids import new_id
from tests.unit.api.calls import Api
from tests.unit.api.live import MISSING, Live, eventually

ALL = pytest.mark.parametrize(("path", "name"), [("/sync", "synced"), ("/repos/clone", "cloned")])
DOES_NOT_EXIST = "The repository does not exist."


@ALL
class TestAllRepositories:
    async def test_secret_is_required(self, api: Api, path: str, name: str) -> None:
        await api.needs_secret("POST", path)

    async def test_every_repository_has_a_result(self, live: Live, path: str, name: str) -> None:
        client_id = await live.api.add_client()
        # A unique name, because the repositories of other tests are there, too.
        good = (await live.api.add_repository(client_id, f"good-{new_id()}"))["repo_name"]
        await live.api.add_repository(client_id, MISSING)
        answer = await live.api.post(path)
        assert list(answer) == [name]
        entries = {entry["repo"]: entry for entry in answer[name]}
        paths = {"/sync": {}, "/repos/clone": {"path": f"/repos/acme/{good}.git"}}
        assert entries[f"acme/{good}"] == {"repo": f"acme/{good}", "success": True, **paths[path]}
        assert entries[f"acme/{MISSING}"] == {
            "repo": f"acme/{MISSING}",
            "success": False,
            "error": DOES_NOT_EXIST,
        }

    async def test_without_a_worker(self, api: Api, path: str, name: str) -> None:
        await api.add_owner()
        expected = "No worker is running. Start one and try again."
        assert await api.refusal(503, "POST", path) == expected


class TestOneRepository:
    """POST /repos/:id/clone."""

    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("POST", f"/repos/{new_id()}/clone")

    async def test_path_of_the_clone(self, live: Live) -> None:
        repository = await live.api.add_repository(await live.api.add_client())
        for repository_id in (repository["id"], repository["id"].upper()):
            assert await live.api.post(f"/repos/{repository_id}/clone") == {
                "success": True,
                "repo": "acme/shop",
                "path": "/repos/acme/shop.git",
            }

    async def test_failed_clone(self, live: Live) -> None:
        repository = await live.api.add_repository(await live.api.add_client(), MISSING)
        assert await live.api.post(f"/repos/{repository['id']}/clone", expect=500) == {
            "success": False,
            "repo": f"acme/{MISSING}",
            "error": DOES_NOT_EXIST,
        }

    async def test_unknown_id(self, api: Api) -> None:
        path = f"/repos/{new_id()}/clone"
        assert await api.refusal(404, "POST", path) == "Repository not found"

    async def test_malformed_id(self, api: Api) -> None:
        reason = await api.refusal(400, "POST", "/repos/x/clone")
        assert reason == "The repository id 'x' is not a UUID."

    async def test_without_a_worker(self, api: Api) -> None:
        repository = await api.add_repository(await api.add_client())
        reason = await api.refusal(503, "POST", f"/repos/{repository['id']}/clone")
        assert reason == "No worker is running. Start one and try again."


async def test_workflow_that_an_operator_terminates(api: Api, parked: TemporalClient) -> None:
    repository = await api.add_repository(await api.add_client())
    await api.report_host()
    handle = parked.get_workflow_handle(f"sync-{repository['id']}")
    asking = asyncio.create_task(api.refusal(500, "POST", f"/repos/{repository['id']}/clone"))
    await eventually(lambda: exists(handle), "the run has begun")
    await handle.terminate()
    assert await asking == "Fetching was stopped before it was finished. Try again."


async def exists(handle: WorkflowHandle[Any, Any]) -> bool:
    try:
        await handle.describe()
    except RPCError:
        return False
    return True
