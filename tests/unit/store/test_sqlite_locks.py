from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from domain.errors import DependencyUnavailable
from store.sqlite.store import SqliteStore
from tests.unit.store.samples import World, a_client, lines, new_world

SHORT_PATIENCE = 0.3


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock, as another process would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orchestrator.db"


@pytest.fixture
async def patient(path: Path) -> AsyncIterator[World]:
    store = SqliteStore(path)
    await store.open()
    yield await new_world(store)
    await store.close()


@pytest.fixture
async def impatient(path: Path) -> AsyncIterator[World]:
    store = SqliteStore(path, busy_seconds=SHORT_PATIENCE)
    await store.open()
    yield await new_world(store)
    await store.close()


async def test_a_write_waits_for_another_process(patient: World, path: Path) -> None:
    with locked(path) as holder:
        writing = asyncio.create_task(patient.add_job())
        done, _ = await asyncio.wait({writing}, timeout=0.2)
        assert not done
        holder.execute("COMMIT")
        job = await asyncio.wait_for(writing, 10)
    assert await patient.read(job) == job


async def test_the_event_loop_runs_while_a_write_waits(patient: World, path: Path) -> None:
    with locked(path):
        writing = asyncio.create_task(patient.add_job())
        longest, last = 0.0, time.monotonic()
        deadline = last + 1.0
        while last < deadline:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        assert not writing.done()
    await asyncio.wait_for(writing, 10)
    assert longest < 0.5


async def test_reads_run_while_a_write_waits(patient: World, path: Path) -> None:
    job = await patient.add_job()
    with locked(path):
        writing = asyncio.create_task(patient.add_job())
        for _ in range(20):
            assert await asyncio.wait_for(patient.read(job), 5) == job
            await asyncio.wait_for(patient.store.ping(), 5)
        assert not writing.done()
    await asyncio.wait_for(writing, 10)


async def test_a_lock_that_is_held_too_long_is_unavailable(impatient: World, path: Path) -> None:
    job = impatient.job()
    with locked(path), pytest.raises(DependencyUnavailable, match="locked") as caught:
        await impatient.store.create_job(job)
    assert caught.value.system == "store"
    await impatient.store.create_job(job)
    assert await impatient.read(job) == job


async def test_queued_writes_wait_for_a_lock_no_longer_than_the_first(
    impatient: World, path: Path
) -> None:
    with locked(path):
        began = time.monotonic()
        results = await asyncio.gather(
            *(impatient.add_job() for _ in range(20)), return_exceptions=True
        )
        took = time.monotonic() - began
    assert {type(result) for result in results} == {DependencyUnavailable}
    assert took < 10 * SHORT_PATIENCE


async def test_a_write_cancelled_at_a_lock_leaves_no_transaction(
    patient: World, path: Path
) -> None:
    job = await patient.add_job()
    with locked(path):
        writes = [
            asyncio.create_task(patient.store.append_messages(job.id, lines(3))) for _ in range(5)
        ]
        await asyncio.wait(writes, timeout=0.1)
        for write in writes:
            write.cancel()
        ends = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}
    await patient.store.append_messages(job.id, lines(1))
    # The first write may have been committed. The queued writes never began.
    assert len(await patient.transcript(job)) in {1, 4}
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


async def test_opening_waits_for_a_lock(path: Path) -> None:
    with locked(path) as holder:
        store = SqliteStore(path)
        opening = asyncio.create_task(store.open())
        done, _ = await asyncio.wait({opening}, timeout=0.2)
        assert not done
        holder.execute("COMMIT")
        await asyncio.wait_for(opening, 10)
    await store.create_client(a_client())
    await store.close()


async def test_opening_is_unavailable_when_a_lock_is_held_too_long(path: Path) -> None:
    store = SqliteStore(path, busy_seconds=SHORT_PATIENCE)
    with locked(path), pytest.raises(DependencyUnavailable, match="locked"):
        await store.open()
    await store.open()
    await store.close()


async def test_a_cancelled_opening_can_be_repeated(path: Path) -> None:
    store = SqliteStore(path)
    with locked(path) as holder:
        opening = asyncio.create_task(store.open())
        await asyncio.wait({opening}, timeout=0.1)
        opening.cancel()
        holder.execute("COMMIT")
        with pytest.raises(asyncio.CancelledError):
            await opening
    await store.open()
    await store.ping()
    await store.close()


async def test_closing_waits_for_running_writes(patient: World) -> None:
    job = await patient.add_job()
    writes = [
        asyncio.create_task(patient.store.append_messages(job.id, lines(100))) for _ in range(5)
    ]
    await asyncio.sleep(0)
    await patient.store.close()
    await asyncio.gather(*writes)
    await patient.store.open()
    assert len(await patient.transcript(job)) == 500
