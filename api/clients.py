"""Clients and their repositories."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import BaseModel, StringConstraints

from api.dependencies import Injected
from api.http.fields import Timestamp, text_up_to
from api.http.lookups import existing_client
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


class NewClient(BaseModel):
    """POST /clients."""

    name: Annotated[str, StringConstraints(max_length=200), text_up_to(800)]


class NewRepository(BaseModel):
    """POST /clients/:id/repository."""

    githubOrg: str
    githubRepo: str
    defaultBranch: str = "main"


class RepositorySummary(BaseModel):
    """A repository in short."""

    id: str
    owner_name: str
    repo_name: str
    default_branch: str

    @classmethod
    def from_domain(cls, repository: Repository) -> Self:
        """Return the model of a repository."""
        return cls(
            id=repository.id,
            owner_name=repository.owner_name,
            repo_name=repository.repo_name,
            default_branch=repository.default_branch,
        )


class RepositoryResponse(BaseModel):
    """A repository with all its fields."""

    id: str
    client_id: str | None
    provider: str
    owner_name: str
    repo_name: str
    default_branch: str
    url: str | None
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def from_domain(cls, repository: Repository) -> Self:
        """Return the model of a repository."""
        return cls(
            id=repository.id,
            client_id=repository.client_id,
            provider=repository.provider,
            owner_name=repository.owner_name,
            repo_name=repository.repo_name,
            default_branch=repository.default_branch,
            url=repository.url,
            created_at=repository.created_at,
            updated_at=repository.updated_at,
        )


class ClientResponse(BaseModel):
    """A client with its oldest repository."""

    id: str
    name: str
    repository: RepositoryResponse | None

    @classmethod
    def from_domain(cls, details: ClientDetails) -> Self:
        """Return the model of a client."""
        repositories = [RepositoryResponse.from_domain(entry) for entry in details.repositories[:1]]
        return cls(
            id=details.client.id,
            name=details.client.name,
            repository=repositories[0] if repositories else None,
        )


class ClientSummary(BaseModel):
    """A client with all its repositories in short, oldest first."""

    id: str
    name: str
    repositories: list[RepositorySummary]

    @classmethod
    def from_domain(cls, details: ClientDetails) -> Self:
        """Return the model of a client."""
        return cls(
            id=details.client.id,
            name=details.client.name,
            repositories=[RepositorySummary.from_domain(entry) for entry in details.repositories],
        )


class ClientList(BaseModel):
    """All clients, by name."""

    clients: list[ClientSummary]


@router.get("/clients")
async def list_clients(dependencies: Injected) -> ClientList:
    """List all clients with their repositories."""
    clients = await dependencies.store.list_clients()
    return ClientList(clients=[ClientSummary.from_domain(client) for client in clients])


@router.post("/clients", status_code=201)
async def create_client(body: NewClient, dependencies: Injected) -> ClientSummary:
    """Create a client."""
    client = Client(new_id(), body.name, utc_now())
    await dependencies.store.create_client(client)
    return ClientSummary.from_domain(ClientDetails(client, []))


@router.get("/clients/{client_id}")
async def get_client(client_id: str, dependencies: Injected) -> ClientResponse:
    """Get a client with its oldest repository."""
    return ClientResponse.from_domain(await existing_client(dependencies.store, client_id))


@router.post("/clients/{client_id}/repository", status_code=201)
async def add_repository(
    client_id: str, body: NewRepository, dependencies: Injected
) -> RepositoryResponse:
    """Add a GitHub repository to a client. Hosts clone it for the first job that needs it."""
    details = await existing_client(dependencies.store, client_id)
    owner, name = validate_owner_name(body.githubOrg), validate_repository_name(body.githubRepo)
    now = utc_now()
    repository = Repository(
        id=new_id(),
        client_id=details.client.id,
        owner_name=owner,
        repo_name=name,
        default_branch=validate_branch_name(body.defaultBranch, field="defaultBranch"),
        url=f"{dependencies.github_server_url}/{owner}/{name}",
        created_at=now,
        updated_at=now,
    )
    await dependencies.store.add_repository(repository)
    return RepositoryResponse.from_domain(repository)
