"""Where the token must not be seen, whatever a job has planted."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, TOKEN, Room, as_claude
from tests.integration.workspace.test_contents import add_submodule
from workspace.worktree.worktree import Worktree

HOOKS = (
    "applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-checkout", "post-commit",
    "post-index-change", "post-merge", "post-rewrite", "pre-auto-gc", "pre-commit", "pre-push",
    "prepare-commit-msg", "reference-transaction", "update",
)  # fmt: skip


class Watch:
    """Looks at all processes of this machine, and at files, until it is stopped."""

    def __init__(self, files: Callable[[], list[Path]]) -> None:
        self.seen: set[str] = set()
        self.leaks: set[str] = set()
        self._files = files
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                self._look_at(process / "cmdline")
                self._look_at(process / "environ")
            for file in self._files():
                self._look_at(file)
            self._stopped.wait(0.005)

    def _look_at(self, file: Path) -> None:
        try:
            content = file.read_bytes()
        except OSError:
            return
        if b"git-remote-http" in content or b"git\0remote-http" in content:
            self.seen.add("git-remote-http")
        if b"GIT_CONFIG_COUNT" in content and b"credential." in content:
            self.seen.add("environment")
        if file.name == "config" and "private-" in str(file):
            self.seen.add("private configuration")
        if TOKEN.encode() in content:
            self.leaks.add(str(file))


def files_of(room: Room) -> list[Path]:
    """Return every file that a job could look at, that is, all but the token's own."""
    found = [*room.mirrors.root.rglob("*"), *room.worktrees.root.rglob("*")]
    return [file for file in found if file.is_file()]


async def test_the_token_is_nowhere_during_a_fetch_and_a_push(room: Room) -> None:
    # Other than rglob, it does not mind directories that go away.
    private = room.mirrors.scratch
    with Watch(lambda: [Path(parent, "config") for parent, _, _ in os.walk(private)]) as watch:
        room.forge.delay_next("git-upload-pack", 0.3)
        worktree = await room.start("job")
        (worktree.path / "new").write_text("x")
        room.forge.delay_next("git-receive-pack", 0.3)
        await room.publish(worktree)
    assert watch.seen == {"git-remote-http", "environment", "private configuration"}
    assert watch.leaks == set()
    assert [file for file in files_of(room) if TOKEN.encode() in file.read_bytes()] == []


def test_the_watch_finds_a_token_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(TOKEN)
    with Watch(lambda: [tmp_path / "config"]) as watch:
        as_claude(tmp_path, "-c", "alias.x=!sleep 0.3", "x", variables={"LEAK": TOKEN})
    assert str(tmp_path / "config") in watch.leaks
    assert any(leak.endswith("/environ") for leak in watch.leaks)


class Thief:
    """Plants everything git is known to run, all of it writing to one file.

    Args:
        url: of the server.
        directory: for the program and the file; jobs can write into it.
    """

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.stolen = directory / "stolen"
        directory.mkdir()
        self.program = directory / "steal"
        self.program.write_text(f'#!/bin/sh\n(echo "$0 $@"; env; cat) >> {self.stolen} <&0\n')
        self.program.chmod(0o755)
        for hook in HOOKS:
            (directory / hook).symlink_to(self.program)

    def settings(self) -> dict[str, str]:
        steal = str(self.program)
        return {
            "credential.helper": f"!{steal}",
            f"credential.{self.url}.helper": f"!{steal}",
            "core.hooksPath": str(self.directory),
            "core.fsmonitor": steal,
            "core.askPass": steal,
            "core.sshCommand": steal,
            "core.editor": steal,
            "core.pager": steal,
            "core.gitProxy": steal,
            "core.alternateRefsCommand": steal,
            "diff.external": steal,
            "diff.evil.textconv": steal,
            "filter.evil.clean": steal,
            "filter.evil.smudge": steal,
            "merge.evil.driver": steal,
            "gpg.program": steal,
            "commit.gpgSign": "true",
            "remote.origin.pushurl": "http://127.0.0.1:1/",
            "remote.origin.uploadpack": steal,
            "remote.origin.receivepack": steal,
            "remote.origin.proxy": "http://127.0.0.1:1",
            "http.proxy": "http://127.0.0.1:1",
            "url.http://127.0.0.1:1/.insteadOf": self.url,
            "submodule.libs/part.update": f"!{steal}",
            "submodule.libs/part.url": "http://127.0.0.1:1/",
            "uploadpack.packObjectsHook": steal,
        }

    def plant(self, worktree: Worktree) -> None:
        for key, value in self.settings().items():
            as_claude(worktree.path, "config", key, value)
        for hook in HOOKS:
            file = worktree.git_dir / "hooks" / hook
            file.parent.mkdir(exist_ok=True)
            file.unlink(missing_ok=True)
            file.symlink_to(self.program)
        (worktree.git_dir / "info" / "attributes").write_text("* filter=evil diff=evil\n")

    def plant_elsewhere(self, worktree: Worktree) -> None:
        """Let git take all of it from another directory than the repository's own."""
        self.plant(worktree)
        other, git_dir = self.directory / "other", worktree.git_dir
        mine = shutil.ignore_patterns(self.directory.name)
        shutil.copytree(git_dir, other, symlinks=True, ignore=mine, dirs_exist_ok=True)
        (git_dir / "config").unlink()
        (git_dir / "commondir").write_text(f"{other}\n")

    def plant_for_worktrees(self, worktree: Worktree) -> None:
        """Put it where git looks with this extension only."""
        as_claude(worktree.path, "config", "extensions.worktreeConfig", "true")
        for key, value in self.settings().items():
            as_claude(worktree.path, "config", "--worktree", key, value)
        (worktree.git_dir / "info" / "attributes").write_text("* filter=evil diff=evil\n")

    def plant_included(self, worktree: Worktree) -> None:
        """Put it into a file that the configuration includes."""
        included = self.directory / "included"
        for key, value in self.settings().items():
            as_claude(worktree.path, "config", "-f", str(included), key, value)
        as_claude(worktree.path, "config", "include.path", str(included))
        (worktree.git_dir / "info" / "attributes").write_text("* filter=evil diff=evil\n")


Plant = Callable[[Thief, Worktree], None]
PLANTS = [Thief.plant, Thief.plant_elsewhere, Thief.plant_for_worktrees, Thief.plant_included]


@pytest.fixture
def thief(room: Room, tmp_path: Path) -> Thief:
    return Thief(room.forge.url, tmp_path / "thief")


async def in_worktree(room: Room) -> tuple[Worktree, Thief]:
    """Make a worktree with a thief in it, where contained commands reach it too."""
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    return worktree, Thief(room.forge.url, worktree.git_dir / "thief")


@pytest.mark.parametrize("plant", PLANTS)
async def test_the_thief_would_steal_from_an_ordinary_git(room: Room, plant: Plant) -> None:
    worktree, thief = await in_worktree(room)
    plant(thief, worktree)
    as_claude(worktree.path, "add", "new")
    assert thief.stolen.exists()


@pytest.mark.parametrize("plant", PLANTS)
async def test_nothing_planted_runs_or_gets_the_token(room: Room, plant: Plant) -> None:
    worktree, thief = await in_worktree(room)
    for step in (
        lambda: room.worktrees.changed_paths(worktree),
        lambda: room.publishing.commit_all(worktree, "Do it", CLAUDE),
        lambda: room.publish(worktree),
        lambda: room.salvage.keep(worktree),
        lambda: room.removal.remove(OWNER, NAME, "job", include_pushed=True),
    ):
        plant(thief, worktree)
        thief.stolen.unlink(missing_ok=True)
        os.utime(worktree.path / "README.md")
        await step()
        assert not thief.stolen.exists(), thief.stolen.read_text()
    assert room.remote_log("feature/x") == ["Do it", "Initial commit"]
    assert "+x" in (await room.patch() or "")


async def test_nothing_planted_in_a_mirror_runs_or_gets_the_token(room: Room, thief: Thief) -> None:
    """With SANDBOX=off a job can write there."""
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    for key, value in thief.settings().items():
        as_claude(room.mirror_path, "config", key, value)
    (room.mirror_path / "hooks").mkdir()
    for hook in HOOKS:
        (room.mirror_path / "hooks" / hook).symlink_to(thief.program)
    await room.publish(worktree)
    assert "feature/x" in room.remote()
    await room.removal.remove(OWNER, NAME, "job", include_pushed=True)
    await room.start("job2")
    assert not thief.stolen.exists(), thief.stolen.read_text()


async def test_submodules_are_fetched_without_a_planted_helper(room: Room, thief: Thief) -> None:
    room.forge.create_repository(OWNER, "Part", {"part.py": "x"})
    add_submodule(room, "../Part.git")
    await room.mirrors.fetch(OWNER, NAME)
    helpers = [key for key in thief.settings() if key.startswith(("credential", "core.ask"))]
    for key in helpers:
        as_claude(room.mirror_path, "config", key, thief.settings()[key])
    worktree = await room.worktrees.create_for_branch(
        OWNER, NAME, "job", "b", "main", [f"{OWNER}/Part"]
    )
    assert worktree.notices == ()
    assert (worktree.path / "libs/part/part.py").read_text() == "x"
    assert not thief.stolen.exists()


class Elsewhere:
    """Two servers: one asks for the token and then redirects to the other, which listens."""

    def __init__(self) -> None:
        self.heard: list[str | None] = []
        self.told: list[str | None] = []
        self._servers = [self._serve(self._listener()), self._serve(self._redirector())]
        self.url = f"http://127.0.0.1:{self._servers[1].server_port}"

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _serve(
        self, handler: type[http.server.BaseHTTPRequestHandler]
    ) -> http.server.ThreadingHTTPServer:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        return server

    def _listener(self) -> type[http.server.BaseHTTPRequestHandler]:
        elsewhere = self

        class Listener(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                elsewhere.heard.append(self.headers.get("authorization"))
                _answer(self, 401, "www-authenticate", 'Basic realm="elsewhere"')

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Listener

    def _redirector(self) -> type[http.server.BaseHTTPRequestHandler]:
        elsewhere = self

        class Redirector(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                elsewhere.told.append(self.headers.get("authorization"))
                if elsewhere.told[-1] is None:
                    _answer(self, 401, "www-authenticate", 'Basic realm="here"')
                else:
                    target = f"http://127.0.0.1:{elsewhere._servers[0].server_port}{self.path}"
                    _answer(self, 302, "location", target)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Redirector


def _answer(
    handler: http.server.BaseHTTPRequestHandler, status: int, header: str, value: str
) -> None:
    handler.send_response(status)
    handler.send_header(header, value)
    handler.send_header("content-length", "0")
    handler.end_headers()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    servers = Elsewhere()
    yield servers
    servers.stop()


async def test_a_redirect_does_not_take_the_token_along(room: Room, elsewhere: Elsewhere) -> None:
    room.forge.url = elsewhere.url
    redirected = Room(room.directory / "redirected", room.forge)
    with pytest.raises(JobFailure) as caught:
        await redirected.mirrors.fetch(OWNER, NAME)
    assert caught.value.code is FailureCode.GITHUB_AUTHENTICATION
    assert elsewhere.told[-1] is not None
    assert elsewhere.heard
    assert set(elsewhere.heard) == {None}
