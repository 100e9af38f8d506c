from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from domain.errors import DependencyUnavailable
from store.protocol import Store
from tests.unit.store.samples import START, a_client, a_host, later, new_id


async def test_a_report_is_read_as_it_was_written(store: Store) -> None:
    assert await store.live_hosts(START) == []
    plain = a_host()
    full = a_host(
        id="mill-2",
        claude_version="2.1.7",
        claude_authenticated=True,
        claude_login_type="oauth_token",
        git_authenticated=True,
        git_user="bot",
        sandbox="landlock",
        sandbox_ok=True,
        sandbox_network="hosts",
        credential_hidden=True,
    )
    await store.report_host(plain)
    await store.report_host(full)
    assert await store.live_hosts(START) == [plain, full]


async def test_a_report_replaces_the_previous_report(store: Store) -> None:
    host = a_host(claude_version="1", git_user="bot")
    await store.report_host(host)
    newer = replace(host, last_seen=later(2), slots=5, claude_version=None, git_user="other")
    for _ in range(2):
        await store.report_host(newer)
    assert await store.live_hosts(START) == [newer]


async def test_a_host_seen_at_the_given_time_is_live(store: Store) -> None:
    hosts = [a_host(id=f"mill-{seconds}", last_seen=later(seconds)) for seconds in (0, 1, 2)]
    for host in hosts:
        await store.report_host(host)
    assert await store.live_hosts(later(1)) == hosts[1:]
    assert await store.live_hosts(later(1.000001)) == hosts[2:]
    assert await store.live_hosts(later(3)) == []


async def test_processes_of_a_host_are_listed_newest_report_first(store: Store) -> None:
    old = a_host(id="b", last_seen=later(1))
    new = a_host(id="b", last_seen=later(2))
    first = a_host(id="a", last_seen=later(0))
    for host in (old, new, first):
        await store.report_host(host)
    assert await store.live_hosts(START) == [first, new, old]


async def test_removing_a_process_keeps_the_other_reports(store: Store) -> None:
    gone, stays = a_host(), a_host()
    await store.report_host(gone)
    await store.report_host(stays)
    await store.remove_host(gone.id, stays.boot_id.upper() + "x")
    for _ in range(2):
        await store.remove_host(gone.id, gone.boot_id)
    assert await store.live_hosts(START) == [stays]


async def test_old_reports_are_deleted(store: Store) -> None:
    hosts = [a_host(id=f"mill-{seconds}", last_seen=later(seconds)) for seconds in (0, 1, 2)]
    for host in hosts:
        await store.report_host(host)
    for _ in range(2):
        await store.forget_hosts(later(1))
        assert await store.live_hosts(START) == hosts[1:]
    await store.forget_hosts(later(2.000001))
    assert await store.live_hosts(START) == []


async def test_an_open_store_answers(store: Store) -> None:
    await store.ping()
    await store.open()
    await store.ping()


async def test_a_closed_store_raises_and_can_be_opened_again(
    connect: Callable[[], Awaitable[Store]],
) -> None:
    store, client = await connect(), a_client()
    await store.create_client(client)
    for _ in range(2):
        await store.close()
    for call in (store.ping(), store.list_clients(), store.get_job(new_id())):
        with pytest.raises(DependencyUnavailable) as caught:
            await call
        assert caught.value.system == "store"
    await store.open()
    assert [details.client for details in await store.list_clients()] == [client]
