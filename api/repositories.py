"""Fetch the hosts' mirrors of repositories."""

from __future__ import annotations

from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from activities.workspaces import FetchMirrorResult
from api.dependencies import Dependencies, Injected
from api.http.errors import Error
from api.http.fields import absent_if_none
from api.http.lookups import parse_id
from domain.errors import DependencyUnavailable, NotFound
from domain.hosts import HOST_LIVE_FOR
from domain.repositories import Repository
from domain.timestamps import utc_now

router = APIRouter(tags=["repositories"])


class SyncedRepository(BaseModel):
    """The result of fetching one repository. `error` is there when it failed."""

    repo: str
    success: bool
    error: str | None = absent_if_none()

    @classmethod
    def from_domain(cls, result: FetchMirrorResult) -> Self:
        """Return the model of a result."""
        return cls(repo=result.repository, success=result.success, error=result.error)


class ClonedRepository(BaseModel):
    """The result of cloning one repository: its `path` on a host, or `error` when it failed."""

    repo: str
    success: bool
    path: str | None = absent_if_none()
    error: str | None = absent_if_none()

    @classmethod
    def from_domain(cls, result: FetchMirrorResult) -> Self:
        """Return the model of a result."""
        return cls(
            repo=result.repository, success=result.success, path=result.path, error=result.error
        )


class SyncResponse(BaseModel):
    """The result of each repository."""

    synced: list[SyncedRepository]


class CloneResponse(BaseModel):
    """The result of each repository."""

    cloned: list[ClonedRepository]


@router.post("/sync")
async def sync(dependencies: Injected) -> SyncResponse:
    """Fetch every repository on every host. The answer comes when all are done."""
    results = await _fetch(dependencies, "all", await dependencies.store.list_repositories())
    return SyncResponse(synced=[SyncedRepository.from_domain(result) for result in results])


@router.post("/repos/clone")
async def clone_all(dependencies: Injected) -> CloneResponse:
    """Clone every repository on every host, or fetch it. The answer comes when all are done."""
    results = await _fetch(dependencies, "all", await dependencies.store.list_repositories())
    return CloneResponse(cloned=[ClonedRepository.from_domain(result) for result in results])


@router.post("/repos/{repository_id}/clone", responses={500: {"model": ClonedRepository | Error}})
async def clone(repository_id: str, dependencies: Injected, response: Response) -> ClonedRepository:
    """Clone one repository on every host, or fetch it. The answer comes when all are done."""
    store = dependencies.store
    repository = await store.get_repository(parse_id(repository_id, "The repository id"))
    if repository is None:
        raise NotFound("Repository not found")
    [result] = await _fetch(dependencies, repository.id, [repository])
    if not result.success:
        response.status_code = 500
    return ClonedRepository.from_domain(result)


async def _fetch(
    dependencies: Dependencies, name: str, repositories: list[Repository]
) -> list[FetchMirrorResult]:
    """Return the result of fetching each repository.

    Raises:
        DependencyUnavailable: no worker is running, or Temporal does not answer.
    """
    # Without a worker, the workflow would wait for one, and the caller with it.
    if not await dependencies.store.live_hosts(utc_now() - HOST_LIVE_FOR):
        raise DependencyUnavailable("No worker is running. Start one and try again.", "temporal")
    return await dependencies.dispatch.sync_repositories(name, repositories)
