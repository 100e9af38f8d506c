from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from fakes.github.server import FakeGitHub
from tests.integration.workspace import git_lfs
from tests.integration.workspace.conftest import NAME, OWNER, Host
from workspace.salvage.salvage import Salvaged

PICTURE = b"another picture"


class LfsServer:
    """An LFS server: the batch API and the storage, without access control."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.authorizations: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def store(self, data: bytes) -> str:
        """Store a file and return its pointer."""
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
def host(github: FakeGitHub, tmp_path: Path) -> Host:
    return Host(tmp_path / "data", github, search_path=git_lfs.search_path())


@pytest.fixture
def lfs(host: Host) -> Iterator[LfsServer]:
    server = LfsServer()
    files = {
        ".gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n",
        ".lfsconfig": f"[lfs]\n\turl = {server.url}\n",
        "old.psd": server.store(b"a picture"),
    }
    host.github.commit(OWNER, NAME, "main", files, "Pictures")
    # The gateway refuses loopback addresses except the configured server.
    network = host.mirrors.network
    network.gateway = replace(
        network.gateway,
        policy=replace(
            network.gateway.policy,
            exempt=network.gateway.policy.exempt | {("127.0.0.1", server.port)},
        ),
        forwards={**network.gateway.forwards, server.port: ("127.0.0.1", server.port)},
    )
    yield server
    server.stop()


async def test_lfs_files_are_fetched(host: Host, lfs: LfsServer) -> None:
    worktree = await host.start("job")
    assert (worktree.path / "old.psd").read_bytes() == b"a picture"
    assert await host.worktrees.changed_paths(worktree) == []
    assert set(lfs.authorizations) == {""}


async def test_lfs_files_are_published_as_pointers(host: Host, lfs: LfsServer) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new.psd").write_bytes(PICTURE)
    sha = await host.publish(worktree)
    pointer = host.github.read_file(OWNER, NAME, sha, "new.psd")
    assert pointer.startswith("version https://git-lfs.github.com/spec/v1\n")
    assert hashlib.sha256(PICTURE).hexdigest() in pointer
    assert PICTURE in lfs.files.values()
    assert await host.removal.remove(OWNER, NAME, "job") is None


async def test_unfetched_lfs_files_do_not_stop_a_push(host: Host, lfs: LfsServer) -> None:
    host.github.commit(OWNER, NAME, "main", {"old.psd": lfs.store(b"a newer picture")}, "Newer")
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new.txt").write_text("x")
    assert host.remote().get("feature/x") is None
    sha = await host.publish(worktree)
    assert host.remote()["feature/x"] == sha


async def test_lfs_repository_needs_git_lfs(host: Host, lfs: LfsServer, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "cat"):
        (programs / name).symlink_to(shutil.which(name) or "")
    plain = Host(tmp_path / "plain", host.github, search_path=str(programs))
    with pytest.raises(JobFailure) as caught:
        await plain.start("job")
    assert caught.value.code is FailureCode.GIT_LFS_MISSING
    assert not plain.worktrees.path(OWNER, NAME, "job").exists()


async def keep_picture(host: Host) -> Salvaged:
    """Keep the work of a job with a picture that only this host has."""
    worktree = await host.start("job")
    (worktree.path / "new.psd").write_bytes(PICTURE)
    kept = await host.removal.remove(OWNER, NAME, "job")
    assert kept is not None
    assert "+oid sha256:" in (kept.patch or "")
    return kept


async def test_kept_lfs_files_are_restored_on_the_same_host(host: Host, lfs: LfsServer) -> None:
    kept = await keep_picture(host)
    again = await host.worktrees.create_from_salvage(
        OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch
    )
    assert (again.path / "new.psd").read_bytes() == PICTURE
    assert (again.path / "old.psd").read_bytes() == b"a picture"
    await host.publish(again)
    assert PICTURE in lfs.files.values()


async def test_kept_lfs_files_cannot_be_restored_on_another_host(
    host: Host, lfs: LfsServer, tmp_path: Path
) -> None:
    kept = await keep_picture(host)
    other_host = Host(tmp_path / "other_host", host.github, search_path=host.git.search_path)
    other_host.mirrors.network.gateway = host.mirrors.network.gateway
    await other_host.mirrors.fetch(OWNER, NAME)
    with pytest.raises(JobFailure, match=hashlib.sha256(PICTURE).hexdigest()) as caught:
        await other_host.worktrees.create_from_salvage(
            OWNER, NAME, "again", "again", "job", kept.base_sha, kept.head_sha, kept.patch
        )
    assert caught.value.code is FailureCode.GIT_FAILED
    assert not await other_host.worktrees.find(OWNER, NAME, "again")


async def test_lfs_files_survive_a_damaged_mirror(host: Host, lfs: LfsServer) -> None:
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new.psd").write_bytes(PICTURE)
    sha = await host.commit(worktree)
    (host.mirror_path / "HEAD").unlink()
    await host.mirrors.fetch(OWNER, NAME)
    await host.publishing.push(OWNER, NAME, sha, "feature/x", None)
    assert PICTURE in lfs.files.values()
