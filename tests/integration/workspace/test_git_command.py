from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from domain.errors import DependencyUnavailable
from tests.integration.workspace.conftest import until
from workspace.git.runner import Git, GitError, GitLocation

FOREVER = "alias.forever=!echo $$ > started; while :; do sleep 0.05; done"


@pytest.fixture
async def place(tmp_path: Path) -> GitLocation:
    place = GitLocation(tmp_path)
    await Git(os.environ["PATH"]).run("init", "--quiet", "--bare", at=place)
    return place


@pytest.fixture
def git() -> Git:
    return Git(os.environ["PATH"])


def has_text(file: Path) -> bool:
    return file.exists() and bool(file.read_text().strip())


def is_running(process_id: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def wait_until_ended(file: Path) -> None:
    await until(lambda: not is_running(int(file.read_text())))


async def test_git_gets_only_the_given_environment(
    git: Git, place: GitLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    proxied = Git(git.search_path, {"https_proxy": "http://proxy:1"})
    printed = await proxied.run("-c", "alias.e=!env", "e", at=place)
    seen = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    assert "GITHUB_TOKEN" not in seen
    assert Path(seen["GIT_DIR"]) == place.git_dir
    assert seen["https_proxy"] == "http://proxy:1"
    assert seen["LC_ALL"] == "C"
    assert "HOME" not in seen


async def test_configuration_cannot_override_the_fixed_settings(
    git: Git, place: GitLocation
) -> None:
    (place.git_dir / "config").write_text("[core]\n\thooksPath = /evil\n\tfsmonitor = /evil\n")
    assert (await git.run("config", "core.hooksPath", at=place)).strip() == "/dev/null"
    assert (await git.run("config", "core.fsmonitor", at=place)).strip() == "false"


async def test_error_contains_the_end_of_stderr(git: Git, place: GitLocation) -> None:
    noise = "alias.x=!i=0; while [ $i -lt 400 ]; do echo line-$i-of-noise >&2; i=$((i+1)); done;"
    with pytest.raises(GitError) as caught:
        await git.run("-c", f"{noise} echo last words >&2; exit 9; :", "x", at=place)
    assert caught.value.exit_code == 9
    assert caught.value.stderr.rstrip().endswith("last words")
    assert len(caught.value.stderr) <= 4096


async def test_exit_code_answers_a_yes_or_no_question(git: Git, place: GitLocation) -> None:
    assert await git.check("-c", "alias.x=!exit 0", "x", at=place)
    assert not await git.check("-c", "alias.x=!exit 1; :", "x", at=place)
    with pytest.raises(GitError):
        await git.check("-c", "alias.x=!exit 2; :", "x", at=place)


async def test_too_much_output_stops_the_command(git: Git, place: GitLocation) -> None:
    with pytest.raises(GitError, match="printed over 100000 bytes"):
        await git.run("-c", "alias.x=!yes", "x", at=place, max_output=100_000, timeout=30)


async def test_large_input_and_output_do_not_block_each_other(git: Git, place: GitLocation) -> None:
    data = b"0123456789abcdef" * 200_000
    assert await git.run("-c", "alias.x=!cat", "x", at=place, stdin=data) == data.decode()


async def test_error_of_a_command_that_ignores_its_input_is_reported(
    git: Git, place: GitLocation
) -> None:
    with pytest.raises(GitError) as caught:
        await git.run("update-ref", "--nonsense", at=place, stdin=b"x" * 5_000_000)
    assert "usage" in caught.value.stderr


async def test_time_limit_ends_the_process_group(git: Git, place: GitLocation) -> None:
    with pytest.raises(GitError) as caught:
        await git.run("-c", FOREVER, "forever", at=place, timeout=0.5)
    assert caught.value.exit_code is None
    await wait_until_ended(place.git_dir / "started")


async def test_cancelling_ends_the_process_group(git: Git, place: GitLocation) -> None:
    running = asyncio.create_task(git.run("-c", FOREVER, "forever", at=place))
    await until(lambda: has_text(place.git_dir / "started"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await wait_until_ended(place.git_dir / "started")


async def test_cancelling_the_start_of_a_command_ends_the_process_group(
    git: Git, place: GitLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec
    is_connected = asyncio.Event()

    async def start_slowly(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        await is_connected.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_slowly)
    running = asyncio.create_task(git.run("-c", FOREVER, "forever", at=place))
    await until(lambda: has_text(place.git_dir / "started"))
    running.cancel()
    await asyncio.sleep(0)
    is_connected.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    await wait_until_ended(place.git_dir / "started")


async def test_command_that_ignores_sigterm_is_killed(git: Git, place: GitLocation) -> None:
    deaf = FOREVER.replace("!echo", "!trap '' TERM; echo")
    running = asyncio.create_task(git.run("-c", deaf, "forever", at=place))
    await until(lambda: has_text(place.git_dir / "started"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await wait_until_ended(place.git_dir / "started")


def test_missing_git_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailable, match="Install git"):
        Git(str(tmp_path))
