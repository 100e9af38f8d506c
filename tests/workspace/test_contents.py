from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.workspace.conftest import NAME, OWNER, Room, as_claude

PART = {"part.py": "part\n"}
needs_lfs = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


def add_submodule(room: Room, url: str, path: str = "libs/part") -> str:
    """Add a submodule to the repository's main branch, and return the commit it points to."""
    scratch = room.directory / f"author-{path.replace('/', '-')}"
    origin = room.forge.root / OWNER / f"{NAME}.git"
    as_claude(room.directory, "clone", "--quiet", str(origin), str(scratch))
    part = room.forge.branches(OWNER, "Part")["main"]
    as_claude(scratch, "update-index", "--add", "--cacheinfo", f"160000,{part},{path}")
    as_claude(scratch, "config", "-f", ".gitmodules", f"submodule.{path}.path", path)
    as_claude(scratch, "config", "-f", ".gitmodules", f"submodule.{path}.url", url)
    as_claude(scratch, "add", ".gitmodules")
    as_claude(scratch, "commit", "-m", "Add a submodule")
    as_claude(scratch, "push", "--quiet", "origin", "main")
    return part


@pytest.mark.parametrize(
    "address", ["{url}/Acme/Part.git", "../Part.git", "git@127.0.0.1:Acme/Part"]
)
async def test_a_submodule_of_the_same_server_is_checked_out(room: Room, address: str) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    part = add_submodule(room, address.format(url=room.forge.url))
    worktree = await room.start("job")
    assert worktree.notices == ()
    assert (worktree.path / "libs/part/part.py").read_text() == "part\n"
    assert as_claude(worktree.path, "submodule", "status").split()[0] == part
    assert await room.worktrees.is_clean(worktree)


async def test_a_worktree_with_a_submodule_is_published_and_removed(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Part.git")
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    (worktree.path / "libs/part/part.py").write_text("edited, but not committed there")
    await room.publish(worktree)
    head = await room.publishing.head(worktree)
    assert (head.commits_ahead, head.files_changed) == (1, 1)
    await room.removal.remove(OWNER, NAME, "job")
    assert not worktree.path.exists()
    assert not worktree.git_dir.exists()
    await room.start("job2", "feature/x")


async def test_parallel_jobs_get_their_submodules(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Part.git")
    for job_id in ("job1", "job2"):
        worktree = await room.start(job_id)
        assert (worktree.path / "libs/part/part.py").exists()


async def test_a_submodule_that_is_not_there_is_noticed_but_does_not_stop_the_job(
    room: Room,
) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Secret.git")
    worktree = await room.start("job")
    [notice] = worktree.notices
    assert "submodules are missing" in notice
    assert "not found" in notice
    assert (worktree.path / "README.md").exists()
    assert await room.worktrees.find(OWNER, NAME, "job") == worktree


async def test_a_submodule_whose_server_is_in_trouble_is_tried_again(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, "../Part.git")
    await room.mirrors.fetch(OWNER, NAME)
    room.forge.fail_next("/Acme/Part.git/*", 502, times=9)
    with pytest.raises(JobFailure) as caught:
        await room.start("job")
    assert caught.value.transient
    room.forge.clear_faults()
    worktree = await room.start("job")
    assert (worktree.path / "libs/part/part.py").exists()


async def test_a_submodule_on_this_machine_is_not_read(room: Room) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, str(room.forge.root / OWNER / "Part.git"))
    worktree = await room.start("job")
    assert "not allowed" in worktree.notices[0]
    assert not (worktree.path / "libs/part/part.py").exists()


class LfsServer:
    """Git LFS's batch API and its storage, without any access check."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.authorizations: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def store(self, data: bytes) -> str:
        """Keep a file and return its pointer."""
        name = hashlib.sha256(data).hexdigest()
        self.files[name] = data
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{name}\nsize {len(data)}\n"

    def batch(self, request: dict[str, object]) -> dict[str, object]:
        wanted = request["objects"]
        assert isinstance(wanted, list)
        return {
            "transfer": "basic",
            "objects": [self._entry(str(request["operation"]), o) for o in wanted],
        }

    def _entry(self, operation: str, wanted: dict[str, object]) -> dict[str, object]:
        known = wanted["oid"] in self.files
        if operation == "upload" and known:
            return wanted
        if operation == "download" and not known:
            return {**wanted, "error": {"code": 404, "message": "not here"}}
        return {**wanted, "actions": {operation: {"href": f"{self.url}/file/{wanted['oid']}"}}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        lfs = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, data: bytes = b"") -> None:
                lfs.authorizations.append(self.headers.get("authorization", ""))
                self.send_response(200)
                self.send_header("content-type", "application/vnd.git-lfs+json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def body(self) -> bytes:
                return self.rfile.read(int(self.headers["content-length"]))

            def do_GET(self) -> None:
                self.answer(lfs.files[self.path.rpartition("/")[2]])

            def do_PUT(self) -> None:
                lfs.files[self.path.rpartition("/")[2]] = self.body()
                self.answer()

            def do_POST(self) -> None:
                self.answer(json.dumps(lfs.batch(json.loads(self.body()))).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def lfs(room: Room) -> Iterator[LfsServer]:
    server = LfsServer()
    files = {
        ".gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n",
        ".lfsconfig": f"[lfs]\n\turl = {server.url}\n",
        "old.psd": server.store(b"a picture"),
    }
    room.forge.commit(OWNER, NAME, "main", files, "Pictures")
    yield server
    server.stop()


@needs_lfs
async def test_lfs_files_are_fetched(room: Room, lfs: LfsServer) -> None:
    worktree = await room.start("job")
    assert (worktree.path / "old.psd").read_bytes() == b"a picture"
    assert await room.worktrees.is_clean(worktree)
    assert set(lfs.authorizations) == {""}


@needs_lfs
async def test_lfs_files_are_published_as_such(room: Room, lfs: LfsServer) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new.psd").write_bytes(b"another picture")
    sha = await room.publish(worktree)
    pointer = room.forge.read_file(OWNER, NAME, sha, "new.psd")
    assert pointer.startswith("version https://git-lfs.github.com/spec/v1\n")
    assert hashlib.sha256(b"another picture").hexdigest() in pointer
    assert b"another picture" in lfs.files.values()
    assert await room.removal.remove(OWNER, NAME, "job") is None


@needs_lfs
async def test_lfs_files_nobody_fetched_do_not_stop_a_push(room: Room, lfs: LfsServer) -> None:
    room.forge.commit(OWNER, NAME, "main", {"old.psd": lfs.store(b"its successor")}, "Newer")
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new.txt").write_text("x")
    assert room.remote().get("feature/x") is None
    sha = await room.publish(worktree)
    assert room.remote()["feature/x"] == sha


async def test_lfs_without_git_lfs_is_refused(room: Room, lfs: LfsServer, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "cat"):
        (programs / name).symlink_to(shutil.which(name) or "")
    plain = Room(tmp_path / "plain", room.forge, search_path=str(programs))
    with pytest.raises(JobFailure) as caught:
        await plain.start("job")
    assert caught.value.code is FailureCode.GIT_LFS_MISSING
    assert not plain.worktrees.path(OWNER, NAME, "job").exists()
