"""Keeping the machines' copies of repositories fresh."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from activities.workspaces import FetchMirrorResult
from api.dependencies import Parts, State
from api.http.lookups import checked_id
from api.jobs.schemas import CloneAnswer, ClonedRepository, SyncAnswer
from api.jobs.views import Json
from domain.errors import DependencyUnavailable, NotFound
from domain.hosts import HOST_LIVE_FOR
from domain.repositories import Repository
from domain.timestamps import utc_now

router = APIRouter(tags=["repositories"])


@router.post("/sync", response_model=SyncAnswer)
async def sync(parts: Parts) -> JSONResponse:
    """Fetch every repository on every machine; answers when all are done."""
    results = await _fetch(parts, "all", await parts.store.list_repositories())
    return JSONResponse({"synced": [_view(result, with_path=False) for result in results]})


@router.post("/repos/clone", response_model=CloneAnswer)
async def clone_all(parts: Parts) -> JSONResponse:
    """Clone every repository on every machine, or fetch it where it is; answers when done."""
    results = await _fetch(parts, "all", await parts.store.list_repositories())
    return JSONResponse({"cloned": [_view(result, with_path=True) for result in results]})


@router.post("/repos/{repository_id}/clone", response_model=ClonedRepository)
async def clone(repository_id: str, parts: Parts) -> JSONResponse:
    """Clone one repository on every machine, or fetch it where it is; answers when done."""
    repository = await parts.store.get_repository(checked_id(repository_id, "The repository id"))
    if repository is None:
        raise NotFound("Repository not found")
    [result] = await _fetch(parts, repository.id, [repository])
    if not result.success:
        return JSONResponse(_view(result, with_path=False), 500)
    return JSONResponse(_view(result, with_path=True))


async def _fetch(
    parts: State, name: str, repositories: list[Repository]
) -> list[FetchMirrorResult]:
    """Have repositories fetched, unless there is nobody to do it: the caller would wait for ever.

    Raises:
        DependencyUnavailable: no worker is running, or Temporal does not answer.
    """
    if not await parts.store.live_hosts(utc_now() - HOST_LIVE_FOR):
        raise DependencyUnavailable("No worker is running. Start one and try again.", "temporal")
    return await parts.dispatch.sync_repositories(name, repositories)


def _view(result: FetchMirrorResult, *, with_path: bool) -> Json:
    view: Json = {"repo": result.repository, "success": result.success}
    if result.error is not None:
        view["error"] = result.error
    elif with_path:
        view["path"] = result.path
    return view
