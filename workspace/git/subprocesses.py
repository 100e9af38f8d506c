"""One child process: its own process group, bounded output, and no survivors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STDERR_LIMIT = 4096
_CHUNK = 1 << 16
# git removes its lock files when it is asked to end; a kill leaves them behind.
_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class ProcessResult:
    """How a process ended.

    Args:
        exit_code: negative when a signal ended it.
        stdout: everything it printed.
        stderr: the last 4 KB of what it complained about.
        over_limit: whether it was stopped because it printed too much.
    """

    exit_code: int
    stdout: bytes
    stderr: str
    over_limit: bool


async def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    stdin: bytes | None,
    timeout: float,
    max_output: int,
    stdout: int | None = None,
    inherited: Collection[int] = (),
) -> ProcessResult:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        environment: the whole environment.
        directory: where it runs.
        stdin: what it reads; None for nothing.
        timeout: in seconds.
        max_output: of its standard output, in bytes; it is stopped there.
        stdout: a descriptor to print to; nothing is returned then.
        inherited: file descriptors that stay open in it.

    Raises:
        TimeoutError: the limit was reached; the whole process group is gone.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL if stdin is None else PIPE,
        stdout=PIPE if stdout is None else stdout,
        stderr=PIPE,
        cwd=directory,
        env=dict(environment),
        start_new_session=True,
        pass_fds=tuple(inherited),
    )
    try:
        async with asyncio.timeout(timeout):
            (printed, over_limit), stderr, _ = await asyncio.gather(
                _collect(process, max_output), _tail(process), _feed(process, stdin or b"")
            )
            exit_code = await process.wait()
    except BaseException:
        await asyncio.shield(asyncio.create_task(_stop(process)))
        raise
    return ProcessResult(exit_code, printed, stderr.decode("utf-8", "replace"), over_limit)


async def _collect(process: Process, limit: int) -> tuple[bytes, bool]:
    chunks: list[bytes] = []
    room = limit
    while process.stdout and (chunk := await process.stdout.read(_CHUNK)):
        if room >= 0:
            chunks.append(chunk)
            room -= len(chunk)
            if room < 0:
                _signal_group(process, signal.SIGTERM)
    return b"".join(chunks), room < 0


async def _tail(process: Process) -> bytes:
    chunks: deque[bytes] = deque()
    size = 0
    while process.stderr and (chunk := await process.stderr.read(_CHUNK)):
        chunks.append(chunk)
        size += len(chunk)
        while size - len(chunks[0]) >= STDERR_LIMIT:
            size -= len(chunks.popleft())
    return b"".join(chunks)[-STDERR_LIMIT:]


async def _feed(process: Process, data: bytes) -> None:
    if process.stdin is None:
        return
    # A process that fails early closes its input; its exit code tells the story.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _stop(process: Process) -> None:
    """End the process group: ask first, then kill, then drain the pipes so that they close."""
    if process.returncode is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await process.wait()
    _signal_group(process, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.communicate()


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
