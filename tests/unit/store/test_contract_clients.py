from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from domain.errors import Conflict, InvalidRequest
from domain.repositories import Client, ClientDetails
from store.protocol import Store
from tests.unit.store.samples import START, RawTables, World, a_client, a_repository, later


async def test_a_client_is_read_as_it_was_written(store: Store) -> None:
    client = a_client("Müller & Söhne")
    await store.create_client(client)
    assert await store.get_client(client.id) == ClientDetails(client, [])
    assert await store.get_client(client.id.upper()) == ClientDetails(client, [])


async def test_times_are_returned_in_utc(store: Store) -> None:
    noon = START.astimezone(timezone(timedelta(hours=5, minutes=30)))
    client = replace(a_client(), created_at=noon)
    await store.create_client(client)
    found = await store.get_client(client.id)
    assert found is not None
    assert found.client.created_at == START
    assert found.client.created_at.utcoffset() == timedelta(0)


async def test_creating_a_client_twice_keeps_the_first(store: Store) -> None:
    client = a_client("first")
    await store.create_client(client)
    await store.create_client(replace(client, name="second"))
    assert [details.client for details in await store.list_clients()] == [client]


async def test_without_clients_the_list_is_empty(store: Store) -> None:
    assert await store.list_clients() == []
    assert await store.list_repositories() == []


async def test_clients_are_listed_by_name_then_id(store: Store) -> None:
    clients = [a_client(name) for name in ("b", "a", "B", "ä", "a", "Z", "a b")]
    for client in clients:
        await store.create_client(client)
    expected = sorted(clients, key=lambda client: (client.name, client.id))
    assert [details.client for details in await store.list_clients()] == expected


async def test_repositories_of_a_client_are_listed_oldest_first(world: World) -> None:
    newer = a_repository(world.client, repo_name="a", created_at=later(2), updated_at=later(3))
    older = a_repository(world.client, repo_name="b", created_at=later(1))
    for repository in (newer, older):
        await world.store.add_repository(repository)
    expected = ClientDetails(world.client, [world.repository, older, newer])
    assert await world.store.get_client(world.client.id) == expected
    assert await world.store.list_clients() == [expected]


async def test_each_client_has_its_own_repositories(world: World) -> None:
    other = await world.other()
    listed = {
        details.client.id: details.repositories for details in await other.store.list_clients()
    }
    assert listed == {world.client.id: [world.repository], other.client.id: [other.repository]}


async def test_a_repository_is_read_as_it_was_written(world: World) -> None:
    repository = a_repository(
        world.client, repo_name="Other.Repo_1", default_branch="dev", url=None, updated_at=later(9)
    )
    await world.store.add_repository(repository)
    assert await world.store.get_repository(repository.id) == repository


async def test_a_repository_may_have_no_client(store: Store) -> None:
    repository = a_repository(None)
    await store.add_repository(repository)
    assert await store.get_repository(repository.id) == repository


async def test_a_client_cannot_have_a_repository_twice_in_any_case(world: World) -> None:
    again = a_repository(world.client, owner_name="ACME", repo_name="Shop")
    with pytest.raises(Conflict, match="ACME/Shop"):
        await world.store.add_repository(again)
    assert await world.store.get_repository(again.id) is None


async def test_adding_the_same_repository_again_changes_nothing(world: World) -> None:
    await world.store.add_repository(replace(world.repository, default_branch="other"))
    assert await world.store.get_repository(world.repository.id) == world.repository


async def test_one_of_two_concurrent_inserts_of_a_repository_conflicts(world: World) -> None:
    twins = [a_repository(world.client, repo_name="twin") for _ in range(8)]
    results = await asyncio.gather(
        *(world.store.add_repository(twin) for twin in twins), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 7
    assert results.count(None) == 1


async def test_a_repository_of_an_unknown_client_is_refused(store: Store) -> None:
    stranger = a_client()
    with pytest.raises(InvalidRequest, match=stranger.id):
        await store.add_repository(a_repository(stranger))


async def test_a_repository_with_a_malformed_client_id_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest, match="client_id"):
        await world.store.add_repository(a_repository(Client("acme", "Acme", START)))


@pytest.mark.parametrize(("owner", "name"), [("acme", "shop"), ("ACME", "sHoP")])
async def test_a_repository_is_found_in_any_case(world: World, owner: str, name: str) -> None:
    assert await world.store.find_repository(owner, name) == world.repository


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("acme", "shop2"),
        ("acm_", "shop"),
        ("acme", "%"),
        ("acme", "sh*"),
        ("", ""),
        ("\ud800", "\x00"),
    ],
)
async def test_a_repository_is_found_by_its_full_name_only(
    world: World, owner: str, name: str
) -> None:
    assert await world.store.find_repository(owner, name) is None


async def test_an_underscore_in_a_name_is_not_a_wildcard(world: World) -> None:
    for name, at in (("myXrepo", later(0)), ("my_repo", later(1))):
        await world.store.add_repository(a_repository(world.client, repo_name=name, created_at=at))
    found = await world.store.find_repository("acme", "MY_REPO")
    assert found is not None
    assert found.repo_name == "my_repo"


async def test_the_oldest_of_several_clients_repositories_is_found(world: World) -> None:
    other = a_client()
    oldest = a_repository(other, owner_name="Acme", created_at=later(-10))
    await world.store.create_client(other)
    await world.store.add_repository(oldest)
    assert await world.store.find_repository("acme", "shop") == oldest


async def test_repositories_are_listed_by_owner_name_and_id(world: World) -> None:
    other = await world.other()
    more = [
        a_repository(world.client, owner_name=owner, repo_name=name)
        for owner, name in (("zoo", "a"), ("Beta", "z"), ("acme", "Atlas"))
    ]
    for repository in more:
        await world.store.add_repository(repository)
    expected = sorted(
        [world.repository, other.repository, *more],
        key=lambda found: (found.owner_name, found.repo_name, found.id),
    )
    assert await world.store.list_repositories() == expected


async def test_only_github_repositories_are_listed(world: World, tables: RawTables) -> None:
    elsewhere = a_repository(world.client, repo_name="elsewhere")
    row = {
        "id": elsewhere.id,
        "client_id": world.client.id,
        "provider": "gitlab",
        "owner_name": "acme",
        "repo_name": "elsewhere",
        "created_at": START.isoformat(),
        "updated_at": START.isoformat(),
    }
    await tables.insert("code_repositories", [row])
    assert await world.store.list_repositories() == [world.repository]
    assert await world.store.find_repository("acme", "elsewhere") is None
    details = await world.store.get_client(world.client.id)
    assert details == ClientDetails(world.client, [world.repository])
    found = await world.store.get_repository(elsewhere.id)
    assert found is not None
    assert found.provider == "gitlab"


async def test_existing_features_and_team_members_are_found(
    world: World, tables: RawTables
) -> None:
    feature, member = a_client().id, a_client().id
    await tables.insert(
        "features", [{"id": feature, "client_id": world.client.id, "title": "Login"}]
    )
    await tables.insert("team_members", [{"id": member, "full_name": "Ada"}])
    assert await world.store.feature_exists(feature)
    assert await world.store.team_member_exists(member)
    assert not await world.store.feature_exists(member)
    assert not await world.store.team_member_exists(feature)
