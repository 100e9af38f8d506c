"""Clients and their repositories."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.dependencies import Parts
from api.http.lookups import existing_client
from api.jobs.schemas import (
    ClientAnswer,
    ClientsAnswer,
    ClientWithRepositories,
    NewClient,
    NewRepository,
    RepositoryAnswer,
)
from api.jobs.views import client_list_view, client_view, repository_view
from domain.names.branches import validate_branch_name
from domain.names.ids import new_id
from domain.repositories import (
    Client,
    ClientDetails,
    Repository,
    validate_owner_name,
    validate_repository_name,
)
from domain.timestamps import utc_now

router = APIRouter(tags=["clients"])


@router.get("/clients", response_model=ClientsAnswer)
async def list_clients(parts: Parts) -> JSONResponse:
    """List all clients with their repositories."""
    clients = await parts.store.list_clients()
    return JSONResponse({"clients": [client_list_view(details) for details in clients]})


@router.post("/clients", response_model=ClientWithRepositories, status_code=201)
async def create_client(body: NewClient, parts: Parts) -> JSONResponse:
    """Create a client."""
    client = Client(new_id(), body.name, utc_now())
    await parts.store.create_client(client)
    return JSONResponse(client_list_view(ClientDetails(client, [])), 201)


@router.get("/clients/{client_id}", response_model=ClientAnswer)
async def get_client(client_id: str, parts: Parts) -> JSONResponse:
    """Get a client with its (first) repository."""
    return JSONResponse(client_view(await existing_client(parts.store, client_id)))


@router.post("/clients/{client_id}/repository", response_model=RepositoryAnswer, status_code=201)
async def add_repository(client_id: str, body: NewRepository, parts: Parts) -> JSONResponse:
    """Add a GitHub repository to a client. It is cloned when it is first needed."""
    details = await existing_client(parts.store, client_id)
    owner, name = validate_owner_name(body.githubOrg), validate_repository_name(body.githubRepo)
    now = utc_now()
    repository = Repository(
        id=new_id(),
        client_id=details.client.id,
        owner_name=owner,
        repo_name=name,
        default_branch=validate_branch_name(body.defaultBranch, field="defaultBranch"),
        url=f"{parts.github_server_url}/{owner}/{name}",
        created_at=now,
        updated_at=now,
    )
    await parts.store.add_repository(repository)
    return JSONResponse(repository_view(repository), 201)
