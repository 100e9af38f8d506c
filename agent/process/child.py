"""The supervisor as a child process: start, stop and reap it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Self

from agent.process.marker import MARKER_NAME, Marker
from agent.process.orphans import kill_run
from sandbox.supervision.supervised import Control, Supervised

_REAPING = 5.0
"""Seconds from the end of the control socket until the process can be reaped; a few milliseconds
are normal (measured)."""

_POLL = 0.005
"""Seconds between two checks while a process is reaped."""


class SupervisedChild:
    """A supervisor, and the socket by which each side notices the end of the other.

    Create it with `start` inside a running event loop.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], control: Control, marker: Marker | None
    ) -> None:
        self.control = control
        self._popen = popen
        self._marker = marker
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.create_task(self._end())

    @classmethod
    def start(
        cls,
        supervised: Callable[[Path | None], Supervised],
        system_prompt: str,
        environment: Mapping[str, str],
        cwd: Path,
    ) -> Self:
        """Start the supervisor and the CLI without waiting for either.

        Args:
            supervised: returns the command, given the path of a file with `system_prompt` or None.
            system_prompt: may be empty.
            environment: the complete environment of both.
            cwd: working directory of both.

        Raises:
            OSError: the process could not be created.
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as on_error, theirs:
            on_error.callback(ours.close)
            with _system_prompt_file(system_prompt) as prompt:
                popen = _spawn(supervised, environment, cwd, theirs.fileno(), prompt)
            on_error.pop_all()
        return cls(popen, Control(ours), Marker.parse(environment.get(MARKER_NAME, "")))

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._popen.pid

    @property
    def pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        """The worker's ends of standard input, output and error, in this order."""
        popen = self._popen
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        return popen.stdin, popen.stdout, popen.stderr

    def kill(self) -> None:
        """Kill an unresponsive supervisor; the processes of the run are then found by marker."""
        self._popen.kill()

    async def ended(self) -> int:
        """Return the exit code when the supervisor and all its descendants are gone."""
        return await asyncio.shield(self._ending)

    async def _end(self) -> int:
        await self.control.gone.wait()
        code = await self._reap()
        if code < 0 and self._marker is not None:
            # The supervisor was killed and could not kill its descendants itself.
            await asyncio.to_thread(kill_run, self._marker)
        return code

    async def _reap(self) -> int:
        deadline = self._loop.time() + _REAPING
        while (code := self._popen.poll()) is None:
            if self._loop.time() > deadline:
                self._popen.kill()
            await asyncio.sleep(_POLL)
        return code


@contextlib.contextmanager
def _system_prompt_file(text: str) -> Iterator[IO[bytes] | None]:
    # A memory file is in no directory, so every sandbox can open it through /dev/fd.
    if not text:
        yield None
        return
    with os.fdopen(os.memfd_create("system-prompt"), "w+b", buffering=0) as file:
        file.write(text.encode("utf-8", "replace"))
        file.seek(0)
        yield file


def _spawn(
    supervised: Callable[[Path | None], Supervised],
    environment: Mapping[str, str],
    cwd: Path,
    control: int,
    prompt: IO[bytes] | None,
) -> subprocess.Popen[bytes]:
    keep = None if prompt is None else prompt.fileno()
    prompt_file = None if keep is None else Path(f"/dev/fd/{keep}")
    return subprocess.Popen(
        supervised(prompt_file).command_line(control, keep),
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd=cwd,
        pass_fds=(control,) if keep is None else (control, keep),
        start_new_session=True,
    )
