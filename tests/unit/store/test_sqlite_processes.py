"""Several processes on one file: the API and the workers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from store.sqlite.store import SqliteStore
from tests.unit.store.samples import new_world

WRITER = """
import asyncio, itertools, json, sys
from pathlib import Path
from domain.names.ids import new_id
from domain.messages import MessageType, NewMessage
from domain.timestamps import utc_now
from store.sqlite.store import SqliteStore

async def main(path, job_id, batches):
    store = SqliteStore(Path(path))
    await store.open()
    print(json.dumps("open"), flush=True)
    for number in itertools.islice(itertools.count(), int(batches) or None):
        lines = [
            NewMessage(new_id(), MessageType.STDOUT, f"{number}", utc_now()) for _ in range(10)
        ]
        await store.append_messages(job_id, lines)
        print(json.dumps([line.id for line in lines]), flush=True)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""

OPENER = """
import asyncio, sys
from pathlib import Path
from domain.repositories import Client
from domain.names.ids import new_id
from domain.timestamps import utc_now
from store.sqlite.store import SqliteStore

async def main(path):
    store = SqliteStore(Path(path))
    sys.stdin.readline()
    await store.open()
    await store.create_client(Client(new_id(), "Acme", utc_now()))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def python(script: str, *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def batch(process: Process) -> list[str]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    ids = json.loads(line)
    assert isinstance(ids, list)
    return ids


async def said_open(process: Process) -> None:
    assert process.stdout is not None
    assert json.loads(await asyncio.wait_for(process.stdout.readline(), 60)) == "open"


async def test_two_processes_write_to_one_job_concurrently(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    store = SqliteStore(path)
    await store.open()
    world = await new_world(store)
    job, count = await world.add_job(), 60
    async with (
        python(WRITER, str(path), job.id, f"{count}") as first,
        python(WRITER, str(path), job.id, f"{count}") as second,
    ):
        await asyncio.gather(said_open(first), said_open(second))
        written = await asyncio.gather(*(batches(process, count) for process in (first, second)))
        assert (await first.wait(), await second.wait()) == (0, 0)
    found = await world.transcript(job)
    await store.close()
    assert [line.seq for line in found] == list(range(1, 2 * 10 * count + 1))
    for own in written:
        assert [line.id for line in found if line.id in set(own)] == own


async def batches(process: Process, count: int) -> list[str]:
    return [line_id for _ in range(count) for line_id in await batch(process)]


async def test_acknowledged_writes_of_a_killed_process_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    store = SqliteStore(path)
    await store.open()
    world = await new_world(store)
    job = await world.add_job()
    await store.close()
    said: list[str] = []
    for _ in range(3):
        async with python(WRITER, str(path), job.id, "0") as writer:
            await said_open(writer)
            said += await batches(writer, 20)
            writer.send_signal(signal.SIGKILL)
            assert await writer.wait() == -signal.SIGKILL
    await store.open()
    found = await world.transcript(job)
    await store.append_messages(job.id, [])
    await store.close()
    assert set(said) <= {line.id for line in found}
    assert [line.seq for line in found] == list(range(1, len(found) + 1))
    assert len(found) % 10 == 0


async def test_four_processes_create_one_new_file(tmp_path: Path) -> None:
    path = tmp_path / "data" / "orchestrator.db"
    async with (
        python(OPENER, str(path)) as first,
        python(OPENER, str(path)) as second,
        python(OPENER, str(path)) as third,
        python(OPENER, str(path)) as fourth,
    ):
        openers = (first, second, third, fourth)
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.write(b"go\n")
        assert await asyncio.gather(*(opener.wait() for opener in openers)) == [0] * 4
    store = SqliteStore(path)
    await store.open()
    assert len(await store.list_clients()) == 4
    await store.close()
