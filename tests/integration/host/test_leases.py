"""The leases of a process, and stopping their work."""

from __future__ import annotations

import asyncio

import pytest

from domain.errors import JobFailure, LeaseLost
from domain.failures import FailureCode
from host.slots.leases import Lease, LeaseKey, Leases

KEY = LeaseKey("job", 1)


@pytest.fixture
def lease() -> Lease:
    return Leases().take(KEY)


async def forever() -> None:
    await asyncio.Event().wait()


async def started(lease: Lease, resists: float = 0.0) -> tuple[asyncio.Task[str], asyncio.Event]:
    """Work that has started under a lease; after a cancellation it runs for `resists` seconds."""
    gone = asyncio.Event()

    async def work() -> str:
        try:
            await forever()
        finally:
            await asyncio.sleep(resists)
            gone.set()
        raise AssertionError

    running = asyncio.create_task(lease.run(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return running, gone


async def test_find_needs_the_exact_key() -> None:
    leases = Leases()
    lease = leases.take(KEY)
    assert leases.require(KEY) is leases.find(KEY) is leases.of("job") is lease
    for other in (LeaseKey("job", 2), LeaseKey("other", 1)):
        assert leases.find(other) is None
        with pytest.raises(LeaseLost, match=f"lease {other.number} of job {other.job_id}"):
            leases.require(other)
    assert leases.job_ids == {"job"}


async def test_dropping_an_older_lease_leaves_the_newer_one() -> None:
    leases = Leases()
    older, newer = leases.take(KEY), leases.take(LeaseKey("job", 2))
    leases.drop(older)
    assert older.ended.is_set()
    assert leases.of("job") is newer
    leases.drop(newer)
    leases.drop(newer)
    assert leases.job_ids == set()


async def test_run_returns_the_result_and_raises_the_error(lease: Lease) -> None:
    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise JobFailure(FailureCode.GIT_FAILED)

    assert await lease.run(answer()) == 42
    with pytest.raises(JobFailure, match=r"git command failed"):
        await lease.run(fail())
    await lease.stop()


async def test_stop_returns_after_the_work_has_ended(lease: Lease) -> None:
    first, first_gone = await started(lease, resists=0.1)
    second, second_gone = await started(lease)
    await lease.stop()
    assert first_gone.is_set()
    assert second_gone.is_set()
    for running in (first, second):
        with pytest.raises(LeaseLost, match="was stopped"):
            await running


async def test_nothing_starts_after_a_stop(lease: Lease) -> None:
    await lease.stop()
    await lease.stop()
    with pytest.raises(LeaseLost):
        await lease.run(forever())


async def test_a_cancellation_from_outside_is_not_a_lost_lease(lease: Lease) -> None:
    running, gone = await started(lease, resists=0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert gone.is_set()
    assert await lease.run(asyncio.sleep(0, "still held")) == "still held"


async def test_a_stop_with_a_cancellation_leaves_no_work_running(lease: Lease) -> None:
    running, gone = await started(lease, resists=0.05)
    stopping = asyncio.create_task(lease.stop())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises((LeaseLost, asyncio.CancelledError)):
        await running
    await stopping
    assert gone.is_set()


async def test_finish_completes_despite_a_stop(lease: Lease) -> None:
    async def resists() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "finished"
        raise AssertionError

    running = asyncio.create_task(lease.run(resists()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await lease.stop()
    assert await running == "finished"


async def test_an_error_during_a_stop_is_a_lost_lease(lease: Lease) -> None:
    async def killed() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise JobFailure(FailureCode.GIT_FAILED, "git was killed") from None

    running = asyncio.create_task(lease.run(killed()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await lease.stop()
    with pytest.raises(LeaseLost):
        await running


async def test_all_leases_are_given_up_concurrently() -> None:
    """No work of this test ends before all of it has been cancelled."""
    leases = Leases()
    held = [leases.take(LeaseKey(str(number), 1)) for number in range(5)]
    all_told = asyncio.Barrier(len(held))

    async def work() -> None:
        try:
            await forever()
        finally:
            await all_told.wait()

    works = [asyncio.create_task(lease.run(work())) for lease in held]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.wait_for(leases.end_all(), 10)
    assert leases.job_ids == set()
    for lease, running in zip(held, works, strict=True):
        assert lease.ended.is_set()
        assert not lease.released
        with pytest.raises(LeaseLost):
            await running


async def test_a_lease_taken_during_end_all_is_kept() -> None:
    leases = Leases()
    await started(leases.take(KEY), resists=0.1)
    ending = asyncio.create_task(leases.end_all())
    await asyncio.sleep(0)
    other = leases.take(LeaseKey("other", 1))
    await ending
    assert leases.of("other") is other
    assert not other.ended.is_set()
