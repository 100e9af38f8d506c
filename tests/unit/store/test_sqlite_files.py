from __future__ import annotations

import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from domain.errors import DependencyFailed, DependencyUnavailable
from store.sqlite import schema as sqlite_schema
from store.sqlite.schema import SCHEMA_VERSION
from store.sqlite.store import SqliteStore
from tests.unit.store.samples import a_client, lines, new_world


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "orchestrator.db"


@pytest.fixture
async def file_store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def move(path: Path, target: Path) -> None:
    path.replace(target)


def run(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


async def failure_of_opening(path: Path) -> DependencyFailed | DependencyUnavailable:
    store = SqliteStore(path)
    with pytest.raises((DependencyFailed, DependencyUnavailable)) as caught:
        await store.open()
    failure = caught.value
    assert isinstance(failure, DependencyFailed | DependencyUnavailable)
    assert failure.system == "store"
    with pytest.raises(DependencyUnavailable, match="not open"):
        await store.ping()
    await store.close()
    return failure


async def test_only_the_owner_may_read_the_files(file_store: SqliteStore, path: Path) -> None:
    await file_store.create_client(a_client())
    assert mode(path.parent) == 0o700
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == [path.name, path.name + "-shm", path.name + "-wal"]
    assert {mode(file) for file in files} == {0o600}


async def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o750)
    store = SqliteStore(directory / "orchestrator.db")
    await store.open()
    await store.close()
    assert mode(directory) == 0o750


async def test_all_rows_are_stored_after_reopening(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    world = await new_world(store)
    job, batch = await world.add_job(), lines(30)
    await store.append_messages(job.id, batch)
    await store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = SqliteStore(path)
    await again.open()
    try:
        found = await again.get_job(job.id)
        assert found is not None
        assert found.job == job
        assert len(await again.read_messages(job.id, 0, 100)) == 30
    finally:
        await again.close()


async def test_the_file_is_in_write_ahead_mode(file_store: SqliteStore, path: Path) -> None:
    await file_store.ping()
    assert pragma(path, "journal_mode") == "wal"
    assert pragma(path, "user_version") == SCHEMA_VERSION


@pytest.mark.parametrize(
    "content", [b"not a database " * 100, b"SQLite format 3\x00" + b"x" * 4096]
)
async def test_a_file_that_is_not_a_database_is_not_changed(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    put(path, content)
    failure = await failure_of_opening(path)
    assert isinstance(failure, DependencyFailed)
    assert "is not a SQLite database" in failure.message
    assert content_of(path) == content


async def test_a_database_of_another_program_is_not_changed(path: Path) -> None:
    path.parent.mkdir()
    run(path, "CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')")
    before = content_of(path)
    failure = await failure_of_opening(path)
    assert isinstance(failure, DependencyFailed)
    assert "another program" in failure.message
    assert content_of(path) == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
async def test_a_file_of_another_schema_version_is_not_changed(path: Path, version: int) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    run(path, f"PRAGMA user_version = {version}")
    before = content_of(path)
    failure = await failure_of_opening(path)
    assert isinstance(failure, DependencyFailed)
    assert f"has schema version {version}" in failure.message
    assert f"needs {SCHEMA_VERSION}" in failure.message
    assert content_of(path) == before


async def test_a_schema_that_cannot_be_created_leaves_the_file_empty(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = ("CREATE TABLE t (x);\n", "NONSENSE;\n")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_schema, "_SCRIPTS", scripts)
        await failure_of_opening(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    store = SqliteStore(path)
    await store.open()
    await store.ping()
    await store.close()


async def test_a_path_that_cannot_be_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "orchestrator.db"):
        assert isinstance(await failure_of_opening(path), DependencyUnavailable)


async def test_the_store_opens_after_the_cause_is_fixed(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    path.write_text("not a database")
    store = SqliteStore(path)
    with pytest.raises(DependencyFailed):
        await store.open()
    path.unlink()
    await store.open()
    await store.ping()
    await store.close()


async def test_a_store_whose_file_was_moved_is_unavailable(
    file_store: SqliteStore, path: Path
) -> None:
    move(path, path.with_name("moved.db"))
    with pytest.raises(DependencyUnavailable, match="cannot be reached"):
        await file_store.ping()
    put(path, b"")
    with pytest.raises(DependencyUnavailable, match="replaced"):
        await file_store.ping()
    move(path.with_name("moved.db"), path)
    await file_store.ping()


async def test_a_full_disk_is_unavailable_and_the_write_is_rolled_back(
    file_store: SqliteStore,
) -> None:
    world = await new_world(file_store)
    job = await world.add_job()
    limit_pages(file_store, 1)
    with pytest.raises(DependencyUnavailable, match="disk is full"):
        await file_store.append_messages(job.id, lines(2000))
    assert await world.transcript(job) == []
    limit_pages(file_store, 1_000_000)
    await file_store.append_messages(job.id, lines(2000))
    assert len(await world.transcript(job)) == 2000


def limit_pages(store: SqliteStore, pages: int) -> None:
    """Limit the file to this number of pages, or to its current size."""
    connections = store._connections
    assert connections is not None
    assert connections._write_connection is not None
    connections._write_connection.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_missing_table_is_a_failure(file_store: SqliteStore, path: Path) -> None:
    run(path, "DROP TABLE agent_hosts")
    with pytest.raises(DependencyFailed, match="tables of this version"):
        await file_store.ping()
