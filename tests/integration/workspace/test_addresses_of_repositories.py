"""Addresses that a repository names: whom the token is offered to, and where git may go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import JobFailure
from fakes.github.server import FakeGitHub
from tests.integration.workspace import git_lfs
from tests.integration.workspace.conftest import NAME, OWNER, Room
from tests.integration.workspace.test_contents import PART, add_submodule


@pytest.fixture
def loopback() -> Iterator[socket.socket]:
    """A service of the host; whether anything has connected to it can be asked."""
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


async def test_the_token_is_not_offered_for_another_client_s_repository(room: Room) -> None:
    room.forge.create_repository(OWNER, "Private", PART)
    add_submodule(room, "../Private.git", part="Private")
    worktree = await room.start("job")
    assert list((worktree.path / "libs/part").iterdir()) == []
    assert "register the repositories of private submodules" in worktree.notices[0]
    statuses = {each.status for each in room.forge.requests if "/Private.git" in each.path}
    assert statuses == {401}


@pytest.mark.parametrize("spelling", ["../part.git", "../PART", "../Shop/../Part.git"])
async def test_the_token_is_offered_however_a_registered_one_is_spelled(
    room: Room, spelling: str
) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, spelling)
    worktree = await room.start("job")
    assert (worktree.path / "libs/part/part.py").read_text() == PART["part.py"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
async def test_a_submodule_on_the_loopback_interface_is_not_asked_for(
    room: Room, loopback: socket.socket, host: str
) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    add_submodule(room, f"http://{host}:{loopback.getsockname()[1]}/part.git")
    worktree = await room.start("job")
    assert "submodules are missing" in worktree.notices[0]
    assert connections(loopback) == 0


@pytest.mark.parametrize("address", ["git://{host}/x", "ext::sh -c id", "ftp://{host}/x", "{file}"])
async def test_only_https_and_the_server_s_own_scheme_are_followed(
    room: Room, loopback: socket.socket, address: str
) -> None:
    room.forge.create_repository(OWNER, "Part", PART)
    host = f"127.0.0.1:{loopback.getsockname()[1]}"
    part = room.forge.root / OWNER / "Part.git"
    add_submodule(room, address.format(host=host, file=f"file://{part}"))
    worktree = await room.start("job")
    assert "submodules are missing" in worktree.notices[0]
    assert connections(loopback) == 0


async def test_an_lfs_server_on_the_loopback_interface_is_not_asked(
    forge: FakeGitHub, tmp_path: Path, loopback: socket.socket
) -> None:
    room = Room(tmp_path / "data", forge, search_path=git_lfs.search_path())
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n"
    files = {
        ".gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n",
        ".lfsconfig": f"[lfs]\n\turl = http://127.0.0.1:{loopback.getsockname()[1]}\n",
        "old.psd": pointer,
    }
    forge.commit(OWNER, NAME, "main", files, "Pictures")
    with pytest.raises(JobFailure):
        await room.start("job")
    assert connections(loopback) == 0
