"""Run a child process in its own process group, with a time limit and an output limit."""

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
# Git removes its lock files on SIGTERM, but not on SIGKILL.
_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class ProcessResult:
    """The exit code and the output of a process.

    Args:
        exit_code: negative when a signal ended the process.
        stdout: the whole output.
        stderr: the last 4 KB of standard error.
        over_limit: whether the process was stopped because its output was too long.
    """

    exit_code: int
    stdout: bytes
    stderr: str
    over_limit: bool


async def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path | None,
    stdin: bytes | None,
    timeout: float,
    max_output: int,
    stdout: int | None = None,
    inherited: Collection[int] = (),
) -> ProcessResult:
    """Run a command and wait until it exits.

    Args:
        command: the program and its arguments.
        environment: the complete environment.
        directory: the working directory.
        stdin: the input; None for an empty input.
        timeout: in seconds.
        max_output: the limit of standard output in bytes. The command is stopped there.
        stdout: a descriptor to write standard output to instead of returning it.
        inherited: file descriptors that the command inherits.

    Raises:
        TimeoutError: the time limit ran out. The whole process group was killed.
    """
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL if stdin is None else PIPE,
            stdout=PIPE if stdout is None else stdout,
            stderr=PIPE,
            cwd=directory,
            env=dict(environment),
            start_new_session=True,
            pass_fds=tuple(inherited),
        )
    )
    try:
        # Cancelling the start itself would kill the process without its children, and then wait
        # until they close its pipes.
        process = await asyncio.shield(starting)
        async with asyncio.timeout(timeout):
            (printed, over_limit), stderr, _ = await asyncio.gather(
                _collect(process, max_output), _tail(process), _feed(process, stdin or b"")
            )
            exit_code = await process.wait()
    except BaseException:
        await asyncio.shield(asyncio.create_task(_stop(starting)))
        raise
    return ProcessResult(exit_code, printed, stderr.decode("utf-8", "replace"), over_limit)


async def _collect(process: Process, limit: int) -> tuple[bytes, bool]:
    chunks: list[bytes] = []
    remaining = limit
    while process.stdout and (chunk := await process.stdout.read(_CHUNK)):
        if remaining >= 0:
            chunks.append(chunk)
            remaining -= len(chunk)
            if remaining < 0:
                _signal_group(process, signal.SIGTERM)
    return b"".join(chunks), remaining < 0


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
    # A process that fails early closes its input. Its exit code is reported.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _stop(starting: asyncio.Task[Process]) -> None:
    """Send SIGTERM, then SIGKILL to the process group, and drain the pipes so that they close."""
    try:
        process = await starting
    except Exception:  # noqa: BLE001 - the caller has this error already
        return
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
