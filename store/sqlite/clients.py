"""Clients, their repositories, and the other rows that a job may refer to."""

from __future__ import annotations

import sqlite3

from typing_extensions import override

from domain.errors import Conflict, InvalidRequest
from domain.repositories import Client, ClientDetails, Repository
from store.codec.rows import (
    CLIENT_COLUMNS,
    REPOSITORY_COLUMNS,
    client_from_row,
    client_to_row,
    repository_from_row,
    repository_to_row,
)
from store.codec.values import canonical_id, column_value
from store.protocol import ClientStore
from store.sqlite.connections import SqliteAggregate, reading, writing
from store.sqlite.errors import is_duplicate
from store.sqlite.statements import exists, insert_new, named, selected

_CLIENTS = f"SELECT {selected(CLIENT_COLUMNS, 'c')} FROM clients c"
_REPOSITORIES = f"SELECT {selected(REPOSITORY_COLUMNS, 'r')} FROM code_repositories r"
_ON_GITHUB = "r.provider = 'github'"


class SqliteClients(SqliteAggregate, ClientStore):
    """Clients, their repositories, and the other rows that a job may refer to."""

    @override
    @writing
    def create_client(self, connection: sqlite3.Connection, client: Client) -> None:
        insert_new(connection, "clients", client_to_row(client))

    @override
    @reading
    def list_clients(self, connection: sqlite3.Connection) -> list[ClientDetails]:
        clients = connection.execute(f"{_CLIENTS} ORDER BY c.name, c.id")
        found = {
            client.id: ClientDetails(client, [])
            for client in (client_from_row(named(CLIENT_COLUMNS, values)) for values in clients)
        }
        for repository in _repositories(connection, _ON_GITHUB, "r.created_at, r.id"):
            if repository.client_id in found:
                found[repository.client_id].repositories.append(repository)
        return list(found.values())

    @override
    @reading
    def get_client(self, connection: sqlite3.Connection, client_id: str) -> ClientDetails | None:
        canonical = canonical_id(client_id)
        values = connection.execute(f"{_CLIENTS} WHERE c.id = ?", (canonical,)).fetchone()
        if values is None:
            return None
        repositories = _repositories(
            connection, f"r.client_id = ? AND {_ON_GITHUB}", "r.created_at, r.id", canonical
        )
        return ClientDetails(client_from_row(named(CLIENT_COLUMNS, values)), repositories)

    @override
    @writing
    def add_repository(self, connection: sqlite3.Connection, repository: Repository) -> None:
        try:
            insert_new(connection, "code_repositories", repository_to_row(repository))
        except sqlite3.IntegrityError as error:
            if is_duplicate(error):
                raise Conflict(
                    f"The client already has the repository {repository.full_name}."
                ) from error
            raise InvalidRequest(
                f"The client {repository.client_id} does not exist. Create it first."
            ) from error

    @override
    @reading
    def get_repository(
        self, connection: sqlite3.Connection, repository_id: str
    ) -> Repository | None:
        found = _repositories(connection, "r.id = ?", "r.id", canonical_id(repository_id))
        return found[0] if found else None

    @override
    @reading
    def find_repository(
        self, connection: sqlite3.Connection, owner_name: str, repo_name: str
    ) -> Repository | None:
        found = _repositories(
            connection,
            f"r.owner_name = ? AND r.repo_name = ? AND {_ON_GITHUB}",
            "r.created_at, r.id LIMIT 1",
            column_value(owner_name),
            column_value(repo_name),
        )
        return found[0] if found else None

    @override
    @reading
    def list_repositories(self, connection: sqlite3.Connection) -> list[Repository]:
        order = "r.owner_name COLLATE BINARY, r.repo_name COLLATE BINARY, r.id"
        return _repositories(connection, _ON_GITHUB, order)

    @override
    @reading
    def feature_exists(self, connection: sqlite3.Connection, feature_id: str) -> bool:
        return exists(connection, "features", canonical_id(feature_id))

    @override
    @reading
    def team_member_exists(self, connection: sqlite3.Connection, team_member_id: str) -> bool:
        return exists(connection, "team_members", canonical_id(team_member_id))


def _repositories(
    connection: sqlite3.Connection, condition: str, order: str, *parameters: object
) -> list[Repository]:
    rows = connection.execute(f"{_REPOSITORIES} WHERE {condition} ORDER BY {order}", parameters)
    return [repository_from_row(named(REPOSITORY_COLUMNS, values)) for values in rows]
