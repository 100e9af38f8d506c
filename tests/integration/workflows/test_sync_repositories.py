"""Fetching repositories on every host."""

from __future__ import annotations

import asyncio
import uuid

from activities.workspaces import FetchMirrorResult
from domain.errors import DependencyUnavailable, NotFound
from tests.integration.workflows.harness import Harness
from tests.integration.workflows.scripts import Gate, Script, raises, returns
from workflows.policies import sync_timeout
from workflows.steps import JOBS_TASK_QUEUE
from workflows.sync_repositories import (
    SyncRepositoriesInput,
    SyncRepositoriesWorkflow,
)

SHOP, SITE = ("shop-id", "acme/shop"), ("site-id", "acme/site")


async def fetch(
    harness: Harness, script: Script, *repositories: tuple[str, str]
) -> list[FetchMirrorResult]:
    name = f"sync-{uuid.uuid4()}"
    harness.scripts[name] = script
    return await asyncio.wait_for(
        harness.temporal.execute_workflow(
            SyncRepositoriesWorkflow.run,
            SyncRepositoriesInput(list(repositories)),
            id=name,
            task_queue=JOBS_TASK_QUEUE,
        ),
        15,
    )


async def test_without_a_host_every_repository_reports_it(harness: Harness) -> None:
    results = await fetch(harness, Script(""), SHOP, SITE)
    assert [result.repository for result in results] == ["acme/shop", "acme/site"]
    assert not any(result.success for result in results)
    assert all("No worker is running" in (result.error or "") for result in results)


async def test_every_host_fetches_every_repository(harness: Harness) -> None:
    script = Script("a", "b")
    results = await fetch(harness, script, SHOP, SITE)
    assert [result.repository for result in results] == ["shop-id", "site-id"]
    assert all(result.success and result.path for result in results)
    for host in ("a", "b"):
        requests = script.requests[f"fetch_mirror on {host}"]
        assert sorted(each.repository_id for each in requests) == ["shop-id", "site-id"]


async def test_a_failure_on_one_host_is_reported(harness: Harness) -> None:
    script = Script("a", "b")
    script.plan(
        "fetch_mirror on b", returns(FetchMirrorResult("acme/shop", False, None, "No disk."))
    )
    [result] = await fetch(harness, script, SHOP)
    assert result == FetchMirrorResult("acme/shop", False, None, "No disk.")


async def test_an_error_is_reported_with_the_requested_name(harness: Harness) -> None:
    script = Script("a")
    script.plan("fetch_mirror on a", raises(NotFound("The repository does not exist.")))
    shop, site = await fetch(harness, script, SHOP, SITE)
    failed, fetched = (shop, site) if not shop.success else (site, shop)
    assert failed.error == "The repository does not exist."
    assert failed.repository in {"acme/shop", "acme/site"}
    assert fetched.success


async def test_a_host_that_does_not_answer_is_reported(harness: Harness) -> None:
    [result] = await fetch(harness, Script("gone"), SHOP)
    assert result.error == "The worker did not answer in time."


async def test_an_outage_is_retried(harness: Harness) -> None:
    script = Script("a")
    script.plan("fetch_mirror on a", raises(DependencyUnavailable("It is down.", "store")))
    [result] = await fetch(harness, script, SHOP)
    assert result.success
    assert script.count("fetch_mirror on a") == 2


async def test_a_host_fetches_four_repositories_at_a_time(harness: Harness) -> None:
    script = Script("a")
    gates = [Gate(returns(FetchMirrorResult(f"acme/{n}", True, f"/{n}", None))) for n in range(6)]
    script.plan("fetch_mirror on a", *gates)
    repositories = [(f"id-{number}", f"acme/{number}") for number in range(6)]
    fetching = asyncio.create_task(fetch(harness, script, *repositories))
    for gate in gates[:4]:
        await gate.started()
    await asyncio.sleep(0.3)
    assert script.count("fetch_mirror on a") == 4
    for gate in gates:
        gate.open()
    results = await fetching
    assert len(results) == 6
    assert all(result.success for result in results)


def test_the_time_limit_grows_with_the_repositories() -> None:
    hours = [sync_timeout(count).total_seconds() / 3600 for count in (1, 4, 9)]
    assert hours == [1, 2, 3]
