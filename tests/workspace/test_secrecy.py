"""Where the token must not be seen, whatever a job has planted."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.workspace.conftest import CLAUDE, NAME, OWNER, TOKEN, Room, as_claude
from workspace import known_content
from workspace.worktree import Worktree

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
    """Plants everything git is known to run, all of it writing to one file."""

    def __init__(self, room: Room, directory: Path) -> None:
        self.url = room.forge.url
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
        as_claude(worktree.path, "config", "extensions.worktreeConfig", "true")
        as_claude(worktree.path, "config", "--worktree", "credential.helper", f"!{self.program}")
        (worktree.mirror / "hooks").mkdir(exist_ok=True)
        for hook in HOOKS:
            (worktree.mirror / "hooks" / hook).symlink_to(self.program)
        (worktree.mirror / "info").mkdir(exist_ok=True)
        (worktree.mirror / "info" / "attributes").write_text("* filter=evil diff=evil\n")


@pytest.fixture
def thief(room: Room, tmp_path: Path) -> Thief:
    return Thief(room, tmp_path / "thief")


async def test_the_thief_would_steal_from_an_ordinary_git(room: Room, thief: Thief) -> None:
    worktree = await room.start("job")
    thief.plant(worktree)
    (worktree.path / "new").write_text("x")
    # With a bare repository this extension alone stops git in every worktree.
    as_claude(worktree.mirror, "config", "--unset", "extensions.worktreeConfig")
    as_claude(worktree.path, "add", "new")
    assert thief.stolen.exists()


async def test_nothing_planted_runs_or_gets_the_token(room: Room, thief: Thief) -> None:
    worktree = await room.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    for step in (
        lambda: room.publishing.commit_all(worktree, "Do it", CLAUDE),
        lambda: room.publish(worktree),
        lambda: room.mirrors.fetch(OWNER, NAME),
        lambda: room.publishing.remote_head(OWNER, NAME, "feature/x"),
        lambda: room.worktrees.changed_paths(worktree),
        lambda: room.salvage.keep(worktree),
        lambda: room.start("job2"),
        lambda: room.removal.remove(OWNER, NAME, "job"),
    ):
        if worktree.path.exists():
            (worktree.mirror / "config").write_text("")
            known_content.restore(worktree.mirror, f"{thief.url}/Acme/Shop.git", lfs=False)
            thief.plant(worktree)
            thief.stolen.unlink(missing_ok=True)
        await step()
        assert not thief.stolen.exists(), thief.stolen.read_text()
    assert room.remote()["feature/x"]


async def test_commands_that_cannot_be_private_get_no_planted_helper(
    room: Room, thief: Thief, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submodules are fetched in the worktree; another job may plant just before that."""
    room.forge.create_repository(OWNER, "Part", {"part.py": "x"})
    part = room.forge.branches(OWNER, "Part")["main"]
    await room.start("other")
    origin = room.forge.root / OWNER / f"{NAME}.git"
    scratch = room.directory / "author"
    as_claude(room.directory, "clone", "--quiet", str(origin), str(scratch))
    modules = '[submodule "libs/part"]\n\tpath = libs/part\n\turl = ../Part.git\n'
    (scratch / ".gitmodules").write_text(modules)
    as_claude(scratch, "add", ".")
    as_claude(scratch, "update-index", "--add", "--cacheinfo", f"160000,{part},libs/part")
    as_claude(scratch, "commit", "-m", "Part")
    as_claude(scratch, "push", "--quiet", "origin", "main")
    await room.mirrors.fetch(OWNER, NAME)
    monkeypatch.setattr(known_content, "restore", lambda *_, **__: None)
    helpers = [key for key in thief.settings() if key.startswith(("credential", "core.ask"))]
    for key in helpers:
        as_claude(room.mirror_path, "config", key, thief.settings()[key])
    worktree = await room.worktrees.create_for_branch(OWNER, NAME, "job", "b", "main")
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
