from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from domain.errors import InvalidRequest, NotFound
from domain.keyed_requests import KeyedRequest
from domain.messages import MAX_CONTENT_CHARACTERS, is_storable, sanitize_text
from store.protocol import Store
from tests.unit.store.samples import TEXTS, a_request, later, new_id

SCOPE = "POST /jobs"


async def answer(store: Store, request: KeyedRequest, status: int, text: str) -> KeyedRequest:
    return await store.answer_key(request.scope, request.key, status, text)


async def share(store: Store, request: KeyedRequest) -> bool:
    return await store.share_key(request.scope, request.key, request.resource_id)


async def release(store: Store, request: KeyedRequest) -> None:
    await store.release_key(request.scope, request.key, request.resource_id)


async def test_a_claim_is_returned_as_it_was_written(store: Store) -> None:
    request = a_request(created_at=later(0.000001))
    assert await store.claim_key(request) == request
    upper = replace(request, resource_id=request.resource_id.upper())
    assert await store.claim_key(upper) == request


async def test_the_first_claim_stays(store: Store) -> None:
    first = a_request()
    await store.claim_key(first)
    other = a_request(fingerprint="other", created_at=later(1))
    for _ in range(2):
        assert await store.claim_key(other) == first


async def test_scopes_have_separate_keys(store: Store) -> None:
    requests = [a_request(), a_request(scope="POST /jobs/1/message"), a_request("KEY-1")]
    for request in requests:
        assert await store.claim_key(request) == request
    answered = await answer(store, requests[0], 201, "{}")
    assert answered == replace(requests[0], status=201, answer="{}")
    assert await store.claim_key(requests[1]) == requests[1]
    assert await store.claim_key(requests[2]) == requests[2]


async def test_twenty_concurrent_claims_return_the_same_request(
    store: Store, connect: Callable[[], Awaitable[Store]]
) -> None:
    stores = [store, await connect()]
    for key in ("a", "b", "c"):
        claims = [a_request(key, fingerprint=f"{number}") for number in range(20)]
        found = await asyncio.gather(
            *(stores[number % 2].claim_key(claim) for number, claim in enumerate(claims))
        )
        assert found[0] in claims
        assert found == [found[0]] * 20
        assert await stores[1].claim_key(claims[-1]) == found[0]


async def test_the_first_answer_stays(store: Store) -> None:
    request = a_request()
    await store.claim_key(request)
    expected = replace(request, status=201, answer='{"id":"1"}')
    assert await answer(store, request, 201, '{"id":"1"}') == expected
    assert await answer(store, request, 400, '{"error":"late"}') == expected
    assert await store.claim_key(a_request()) == expected


async def test_one_of_concurrent_answers_is_kept_completely(
    store: Store, connect: Callable[[], Awaitable[Store]]
) -> None:
    stores, request = [store, await connect()], a_request()
    await store.claim_key(request)
    found = await asyncio.gather(
        *(answer(stores[number % 2], request, number, f"{number}") for number in range(20))
    )
    assert found == [found[0]] * 20
    assert found[0].answer == f"{found[0].status}"


async def test_an_empty_answer_counts_as_an_answer(store: Store) -> None:
    request = a_request()
    await store.claim_key(request)
    await answer(store, request, 204, "")
    assert await answer(store, request, 200, "{}") == replace(request, status=204, answer="")


async def test_an_unclaimed_key_cannot_be_answered(store: Store) -> None:
    await store.claim_key(a_request())
    for scope, key in ((SCOPE, "key-2"), ("POST /clients", "key-1"), (SCOPE, "\x00")):
        with pytest.raises(NotFound, match="Send the request again"):
            await store.answer_key(scope, key, 201, "{}")


async def test_a_released_key_can_be_claimed_again(store: Store) -> None:
    first, second, other = a_request(), a_request(), a_request("key-2")
    await store.claim_key(first)
    await store.claim_key(other)
    for _ in range(2):
        await release(store, first)
    with pytest.raises(NotFound):
        await answer(store, first, 201, "{}")
    assert await store.claim_key(second) == second
    assert await store.claim_key(a_request("key-2")) == other


async def test_a_late_repeated_release_keeps_the_new_claim(store: Store) -> None:
    first, second = a_request(), a_request()
    await store.claim_key(first)
    await release(store, first)
    await store.claim_key(second)
    await release(store, first)
    assert await store.claim_key(a_request()) == second


async def test_a_shared_key_is_not_released(store: Store) -> None:
    """Neither the first request nor the request that shares the key can release it."""
    request = a_request()
    await store.claim_key(request)
    for _ in range(2):
        assert await share(store, request)
        await release(store, request)
    assert await store.claim_key(a_request()) == request
    assert await answer(store, request, 201, "{}") == replace(request, status=201, answer="{}")


async def test_a_key_is_shared_only_for_its_own_resource(store: Store) -> None:
    request, released, answered = a_request(), a_request("key-2"), a_request("key-3")
    for claim in (request, released, answered):
        await store.claim_key(claim)
    await release(store, released)
    await answer(store, answered, 201, "{}")
    for claim in (a_request(), released, answered, a_request(scope="POST /clients")):
        assert not await share(store, claim)
    await release(store, request)
    newcomer = a_request()
    assert await store.claim_key(newcomer) == newcomer


async def test_one_of_a_concurrent_share_and_release_takes_effect(
    store: Store, connect: Callable[[], Awaitable[Store]]
) -> None:
    other = await connect()
    for number in range(20):
        request, newcomer = a_request(f"{number}"), a_request(f"{number}")
        await store.claim_key(request)
        is_shared, _ = await asyncio.gather(share(store, request), release(other, request))
        assert await store.claim_key(newcomer) == (request if is_shared else newcomer)


async def test_ids_are_compared_in_any_case(store: Store) -> None:
    first, second = a_request(), a_request()
    await store.claim_key(first)
    await release(store, replace(first, resource_id=first.resource_id.upper()))
    assert await store.claim_key(second) == second
    assert await share(store, replace(second, resource_id=second.resource_id.upper()))


async def test_an_answered_key_is_not_released(store: Store) -> None:
    request = a_request()
    await store.claim_key(request)
    await answer(store, request, 201, "{}")
    await release(store, request)
    assert await store.claim_key(a_request()) == replace(request, status=201, answer="{}")


async def test_old_keys_are_deleted(store: Store) -> None:
    old, young = a_request("old"), a_request("young", created_at=later(1))
    for request in (old, young):
        await store.claim_key(request)
        await answer(store, request, 201, "{}")
    for _ in range(2):
        await store.forget_keys(later(1))
        assert (await store.claim_key(replace(young, fingerprint="x"))).status == 201
    with pytest.raises(NotFound):
        await answer(store, old, 201, "{}")
    await store.forget_keys(later(1.000001))
    with pytest.raises(NotFound):
        await answer(store, young, 201, "{}")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_a_key_may_be_any_text(store: Store, text: str) -> None:
    request = a_request(text, scope=text, fingerprint=text)
    kept = sanitize_text(text)
    expected = replace(request, scope=kept, key=kept, fingerprint=kept)
    assert await store.claim_key(request) == expected
    assert await share(store, request)
    assert (await answer(store, request, 201, "{}")).status == 201
    other = a_request(f"{text}.", scope=text)
    await store.claim_key(other)
    await release(store, other)
    with pytest.raises(NotFound):
        await store.answer_key(text, f"{text}.", 201, "{}")


async def test_a_key_may_have_two_thousand_bytes(store: Store) -> None:
    # Random, because Postgres compresses repeated text.
    key = "".join(new_id() for _ in range(54))
    request = a_request(key, scope="x" * (2000 - len(key)))
    assert await store.claim_key(request) == request
    await release(store, request)
    with pytest.raises(NotFound):
        await answer(store, request, 201, "{}")


@pytest.mark.parametrize("text", [text for text in TEXTS.values() if is_storable(text)])
async def test_an_answer_is_stored_unchanged(store: Store, text: str) -> None:
    request = a_request()
    await store.claim_key(request)
    assert (await answer(store, request, 201, text)).answer == text


async def test_a_long_answer_is_stored_completely(store: Store) -> None:
    request, text = a_request(), f'"{"日" * MAX_CONTENT_CHARACTERS}"'
    await store.claim_key(request)
    assert (await answer(store, request, 201, text)).answer == text


async def test_an_answer_that_cannot_be_stored_unchanged_is_refused(store: Store) -> None:
    request = a_request()
    await store.claim_key(request)
    for text in ("\x00", "\ud800"):
        with pytest.raises(InvalidRequest, match="answer"):
            await answer(store, request, 201, text)
    assert await store.claim_key(request) == request


async def test_a_malformed_resource_id_is_refused(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="resource_id"):
        await store.claim_key(a_request(resource_id="job-1"))
