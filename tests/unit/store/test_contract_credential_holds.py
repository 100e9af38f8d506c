from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta, timezone

import pytest

from store.protocol import Store
from tests.unit.store.samples import TEXTS, later

CREDENTIAL = "6f1c2a"


async def test_a_credential_without_a_hold_is_free(store: Store) -> None:
    await store.hold_credential(CREDENTIAL, later(1))
    assert await store.credential_held_until("another") is None
    assert await store.credential_held_until(CREDENTIAL.upper()) is None


async def test_the_later_time_is_kept(store: Store) -> None:
    for seconds, expected in ((5, 5), (1, 5), (5, 5), (5.000001, 5.000001), (0, 5.000001)):
        await store.hold_credential(CREDENTIAL, later(seconds))
        assert await store.credential_held_until(CREDENTIAL) == later(expected)


async def test_times_are_compared_across_time_zones(store: Store) -> None:
    east, west = (timezone(timedelta(hours=hours)) for hours in (14, -12))
    await store.hold_credential(CREDENTIAL, later(5).astimezone(west))
    await store.hold_credential(CREDENTIAL, later(4).astimezone(east))
    found = await store.credential_held_until(CREDENTIAL)
    assert found == later(5)
    assert found.utcoffset() == timedelta(0)


async def test_each_credential_has_its_own_hold(store: Store) -> None:
    await store.hold_credential("one", later(1))
    await store.hold_credential("two", later(2))
    assert await store.credential_held_until("one") == later(1)
    assert await store.credential_held_until("two") == later(2)


async def test_the_latest_of_concurrent_holds_is_kept(
    store: Store, connect: Callable[[], Awaitable[Store]]
) -> None:
    stores = [store, await connect()]
    seconds = [7, 19, 3, 11, 0, 18, 5, 13, 2, 17, 9, 1, 16, 6, 12, 4, 15, 8, 14, 10]
    await asyncio.gather(
        *(stores[number % 2].hold_credential(CREDENTIAL, later(number)) for number in seconds)
    )
    assert await stores[1].credential_held_until(CREDENTIAL) == later(19)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_a_credential_fingerprint_may_be_any_text(store: Store, text: str) -> None:
    await store.hold_credential(text, later(1))
    assert await store.credential_held_until(text) == later(1)
    assert await store.credential_held_until(f"{text}.") is None
