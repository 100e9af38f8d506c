"""Keeping the machines' copies of repositories fresh."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from activities.workspaces import MirrorResult
from api.lookups import checked_id
from api.schemas import CloneAnswer, ClonedRepository, SyncAnswer
from api.state import Parts
from api.views import Json
from domain.errors import NotFound

router = APIRouter(tags=["repositories"])


@router.post("/sync", response_model=SyncAnswer)
async def sync(parts: Parts) -> JSONResponse:
    """Fetch every repository on every machine; answers when all are done."""
    results = await parts.dispatch.fetch_mirrors("all", await parts.store.list_repositories())
    return JSONResponse({"synced": [_view(result, with_path=False) for result in results]})


@router.post("/repos/clone", response_model=CloneAnswer)
async def clone_all(parts: Parts) -> JSONResponse:
    """Clone every repository on every machine, or fetch it where it is; answers when done."""
    results = await parts.dispatch.fetch_mirrors("all", await parts.store.list_repositories())
    return JSONResponse({"cloned": [_view(result, with_path=True) for result in results]})


@router.post("/repos/{repository_id}/clone", response_model=ClonedRepository)
async def clone(repository_id: str, parts: Parts) -> JSONResponse:
    """Clone one repository on every machine, or fetch it where it is; answers when done."""
    repository = await parts.store.get_repository(checked_id(repository_id, "The repository id"))
    if repository is None:
        raise NotFound("Repository not found")
    [result] = await parts.dispatch.fetch_mirrors(repository.id, [repository])
    if not result.success:
        return JSONResponse(_view(result, with_path=False), 500)
    return JSONResponse(_view(result, with_path=True))


def _view(result: MirrorResult, *, with_path: bool) -> Json:
    view: Json = {"repo": result.repository, "success": result.success}
    if result.error is not None:
        view["error"] = result.error
    elif with_path:
        view["path"] = result.path
    return view
