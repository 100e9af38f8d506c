"""The token does not leak, even if a job has planted programs."""

from __future__ import annotations

import asyncio
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.errors import JobFailure
from domain.failures import FailureCode
from tests.integration.workspace.conftest import CLAUDE, NAME, OWNER, TOKEN, Host, as_claude, until
from tests.integration.workspace.test_submodule_checkout import add_submodule
from workspace.worktree.worktree import Worktree

HOOKS = (
    "applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-checkout", "post-commit",
    "post-index-change", "post-merge", "post-rewrite", "pre-auto-gc", "pre-commit", "pre-push",
    "prepare-commit-msg", "reference-transaction", "update",
)  # fmt: skip


class Watch:
    """Reads all processes of the host, and given files, until it is stopped."""

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


def files_of(host: Host) -> list[Path]:
    """Return all files of the mirrors and worktrees. A job could read them."""
    found = [*host.mirrors.root.rglob("*"), *host.worktrees.root.rglob("*")]
    return [file for file in found if file.is_file()]


async def test_token_does_not_leak_during_fetch_and_push(host: Host) -> None:
    # os.walk ignores directories that are deleted during the walk; rglob does not.
    private = host.mirrors.scratch
    with Watch(lambda: [Path(parent, "config") for parent, _, _ in os.walk(private)]) as watch:
        host.github.delay_next("git-upload-pack", 0.3)
        worktree = await host.start("job")
        (worktree.path / "new").write_text("x")
        host.github.delay_next("git-receive-pack", 0.3)
        await host.publish(worktree)
    assert watch.seen == {"git-remote-http", "environment", "private configuration"}
    assert watch.leaks == set()
    assert [file for file in files_of(host) if TOKEN.encode() in file.read_bytes()] == []


async def test_watch_finds_leaks_in_files_and_environments(tmp_path: Path) -> None:
    config, found = tmp_path / "config", tmp_path / "found"
    config.write_text(TOKEN)
    wait = ("-c", f"alias.x=!until test -e {found}; do sleep 0.01; done", "x")
    with Watch(lambda: [config]) as watch:
        waiting = asyncio.create_task(
            asyncio.to_thread(as_claude, tmp_path, *wait, variables={"LEAK": TOKEN})
        )
        try:
            await until(lambda: str(config) in watch.leaks)
            await until(lambda: any(leak.endswith("/environ") for leak in {*watch.leaks}))
        finally:
            found.touch()
            await waiting


class Thief:
    """Plants all programs that git is known to run. Each writes to one file.

    Args:
        url: the address of the server.
        directory: for the program and the file. Jobs can write to it.
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
        """Move the configuration to another directory with `commondir`."""
        self.plant(worktree)
        other, git_dir = self.directory / "other", worktree.git_dir
        mine = shutil.ignore_patterns(self.directory.name)
        shutil.copytree(git_dir, other, symlinks=True, ignore=mine, dirs_exist_ok=True)
        (git_dir / "config").unlink()
        (git_dir / "commondir").write_text(f"{other}\n")

    def plant_for_worktrees(self, worktree: Worktree) -> None:
        """Plant it in the configuration for `extensions.worktreeConfig`."""
        as_claude(worktree.path, "config", "extensions.worktreeConfig", "true")
        for key, value in self.settings().items():
            as_claude(worktree.path, "config", "--worktree", key, value)
        (worktree.git_dir / "info" / "attributes").write_text("* filter=evil diff=evil\n")

    def plant_included(self, worktree: Worktree) -> None:
        """Plant it in a file that the configuration includes."""
        included = self.directory / "included"
        for key, value in self.settings().items():
            as_claude(worktree.path, "config", "-f", str(included), key, value)
        as_claude(worktree.path, "config", "include.path", str(included))
        (worktree.git_dir / "info" / "attributes").write_text("* filter=evil diff=evil\n")


Plant = Callable[[Thief, Worktree], None]
PLANTS = [Thief.plant, Thief.plant_elsewhere, Thief.plant_for_worktrees, Thief.plant_included]


@pytest.fixture
def thief(host: Host, tmp_path: Path) -> Thief:
    return Thief(host.github.url, tmp_path / "thief")


async def in_worktree(host: Host) -> tuple[Worktree, Thief]:
    """Create a worktree, with a thief that contained commands can reach too."""
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    return worktree, Thief(host.github.url, worktree.git_dir / "thief")


@pytest.mark.parametrize("plant", PLANTS)
async def test_thief_steals_from_an_unprotected_git(host: Host, plant: Plant) -> None:
    worktree, thief = await in_worktree(host)
    plant(thief, worktree)
    as_claude(worktree.path, "add", "new")
    assert thief.stolen.exists()


@pytest.mark.parametrize("plant", PLANTS)
async def test_planted_programs_do_not_run_or_get_the_token(host: Host, plant: Plant) -> None:
    worktree, thief = await in_worktree(host)
    for step in (
        lambda: host.worktrees.changed_paths(worktree),
        lambda: host.publishing.commit_all(worktree, "Do it", CLAUDE),
        lambda: host.publish(worktree),
        lambda: host.salvage.keep(worktree),
        lambda: host.removal.remove(OWNER, NAME, "job", include_pushed=True),
    ):
        plant(thief, worktree)
        thief.stolen.unlink(missing_ok=True)
        os.utime(worktree.path / "README.md")
        await step()
        assert not thief.stolen.exists(), thief.stolen.read_text()
    assert host.remote_log("feature/x") == ["Do it", "Initial commit"]
    assert "+x" in (await host.patch() or "")


async def test_programs_planted_in_a_mirror_do_not_run_or_get_the_token(
    host: Host, thief: Thief
) -> None:
    """With SANDBOX=off, a job can write to the mirror."""
    worktree = await host.start("job", "feature/x")
    (worktree.path / "new").write_text("x")
    for key, value in thief.settings().items():
        as_claude(host.mirror_path, "config", key, value)
    (host.mirror_path / "hooks").mkdir()
    for hook in HOOKS:
        (host.mirror_path / "hooks" / hook).symlink_to(thief.program)
    await host.publish(worktree)
    assert "feature/x" in host.remote()
    await host.removal.remove(OWNER, NAME, "job", include_pushed=True)
    await host.start("job2")
    assert not thief.stolen.exists(), thief.stolen.read_text()


async def test_planted_helper_is_not_used_for_submodules(host: Host, thief: Thief) -> None:
    host.github.create_repository(OWNER, "Part", {"part.py": "x"})
    add_submodule(host, "../Part.git")
    await host.mirrors.fetch(OWNER, NAME)
    helpers = [key for key in thief.settings() if key.startswith(("credential", "core.ask"))]
    for key in helpers:
        as_claude(host.mirror_path, "config", key, thief.settings()[key])
    worktree = await host.worktrees.create_for_branch(
        OWNER, NAME, "job", "b", "main", [f"{OWNER}/Part"]
    )
    assert worktree.notices == ()
    assert (worktree.path / "libs/part/part.py").read_text() == "x"
    assert not thief.stolen.exists()


class RedirectServers:
    """Two servers. The first requires the token and then redirects to the second."""

    def __init__(self) -> None:
        self.redirected_authorizations: list[str | None] = []
        self.first_authorizations: list[str | None] = []
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
        redirect_servers = self

        class Listener(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                redirect_servers.redirected_authorizations.append(self.headers.get("authorization"))
                _answer(self, 401, "www-authenticate", 'Basic realm="redirect_servers"')

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Listener

    def _redirector(self) -> type[http.server.BaseHTTPRequestHandler]:
        redirect_servers = self

        class Redirector(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                redirect_servers.first_authorizations.append(self.headers.get("authorization"))
                if redirect_servers.first_authorizations[-1] is None:
                    _answer(self, 401, "www-authenticate", 'Basic realm="here"')
                else:
                    target = (
                        f"http://127.0.0.1:{redirect_servers._servers[0].server_port}{self.path}"
                    )
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
def redirect_servers() -> Iterator[RedirectServers]:
    servers = RedirectServers()
    yield servers
    servers.stop()


async def test_redirect_does_not_forward_the_token(
    host: Host, redirect_servers: RedirectServers
) -> None:
    host.github.url = redirect_servers.url
    redirected = Host(host.directory / "redirected", host.github)
    with pytest.raises(JobFailure) as caught:
        await redirected.mirrors.fetch(OWNER, NAME)
    assert caught.value.code is FailureCode.GITHUB_AUTHENTICATION
    assert redirect_servers.first_authorizations[-1] is not None
    assert redirect_servers.redirected_authorizations
    assert set(redirect_servers.redirected_authorizations) == {None}
