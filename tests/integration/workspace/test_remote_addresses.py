"""Submodule and LFS addresses: where git may connect, and which servers get the token."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import JobFailure
from fakes.github.server import FakeGitHub
from tests.integration.workspace import git_lfs
from tests.integration.workspace.conftest import NAME, OWNER, Host
from tests.integration.workspace.test_submodule_checkout import PART, add_submodule


@pytest.fixture
def loopback() -> Iterator[socket.socket]:
    """A service on the loopback interface, for `connections`."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.setblocking(False)
        yield service


def connections(service: socket.socket) -> int:
    count = 0
    while True:
        try:
            service.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


async def test_token_is_not_sent_for_another_clients_repository(host: Host) -> None:
    host.github.create_repository(OWNER, "Private", PART)
    add_submodule(host, "../Private.git", part="Private")
    worktree = await host.start("job")
    assert list((worktree.path / "libs/part").iterdir()) == []
    assert "register the repositories of private submodules" in worktree.notices[0]
    statuses = {each.status for each in host.github.requests if "/Private.git" in each.path}
    assert statuses == {401}


@pytest.mark.parametrize("spelling", ["../part.git", "../PART", "../Shop/../Part.git"])
async def test_token_is_sent_for_any_spelling_of_a_registered_repository(
    host: Host, spelling: str
) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, spelling)
    worktree = await host.start("job")
    assert (worktree.path / "libs/part/part.py").read_text() == PART["part.py"]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
async def test_submodule_on_loopback_is_not_contacted(
    host: Host, loopback: socket.socket, name: str
) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    add_submodule(host, f"http://{name}:{loopback.getsockname()[1]}/part.git")
    worktree = await host.start("job")
    assert "submodules are missing" in worktree.notices[0]
    assert connections(loopback) == 0


@pytest.mark.parametrize(
    "address", ["git://{server}/x", "ext::sh -c id", "ftp://{server}/x", "{file}"]
)
async def test_other_url_schemes_are_refused(
    host: Host, loopback: socket.socket, address: str
) -> None:
    host.github.create_repository(OWNER, "Part", PART)
    server = f"127.0.0.1:{loopback.getsockname()[1]}"
    part = host.github.root / OWNER / "Part.git"
    add_submodule(host, address.format(server=server, file=f"file://{part}"))
    worktree = await host.start("job")
    assert "submodules are missing" in worktree.notices[0]
    assert connections(loopback) == 0


async def test_lfs_server_on_loopback_is_not_contacted(
    github: FakeGitHub, tmp_path: Path, loopback: socket.socket
) -> None:
    host = Host(tmp_path / "data", github, search_path=git_lfs.search_path())
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n"
    files = {
        ".gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n",
        ".lfsconfig": f"[lfs]\n\turl = http://127.0.0.1:{loopback.getsockname()[1]}\n",
        "old.psd": pointer,
    }
    github.commit(OWNER, NAME, "main", files, "Pictures")
    with pytest.raises(JobFailure):
        await host.start("job")
    assert connections(loopback) == 0
