"""The supervisor as a child process: started, told to stop, and reaped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Self

from agent import supervisor
from agent.command import Launch, command_line
from agent.environment import MARKER_NAME, Marker
from agent.sweep import end_run

_SUPERVISOR = Path(supervisor.__file__)

_REAPING = 5.0
"""Seconds from the supervisor's last sign until it can be reaped; measured in milliseconds."""

_POLL = 0.005


class SupervisedChild:
    """A supervisor and the socket by which each learns of the other's end.

    Made by `start`, inside a running loop.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], control: socket.socket, marker: Marker | None
    ) -> None:
        self._popen = popen
        self._control = control
        self._marker = marker
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._hear)
        self._ending = asyncio.create_task(self._end())

    @classmethod
    def start(
        cls, executable: Path, launch: Launch, environment: Mapping[str, str], cwd: Path
    ) -> Self:
        """Start supervisor and CLI; takes some milliseconds and never waits for either.

        Raises:
            OSError: as `subprocess.Popen`.
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as on_error, theirs:
            on_error.callback(ours.close)
            with _system_prompt_file(launch.system_prompt) as prompt:
                popen = _spawn(executable, launch, environment, cwd, theirs.fileno(), prompt)
            on_error.pop_all()
        return cls(popen, ours, Marker.parse(environment.get(MARKER_NAME, "")))

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._popen.pid

    @property
    def pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        """The worker's ends of standard input, output and error."""
        popen = self._popen
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        return popen.stdin, popen.stdout, popen.stderr

    def ask_to_stop(self, grace: float) -> None:
        """Tell the supervisor to end the run within `grace` seconds. Repeatable."""
        with contextlib.suppress(OSError):
            self._control.send(f"{grace}\n".encode())

    def kill(self) -> None:
        """Kill a supervisor that does not answer; the rest of the run is then found by marker."""
        self._popen.kill()

    async def ended(self) -> int:
        """Return the exit code once the supervisor and all that was below it are gone."""
        return await asyncio.shield(self._ending)

    def _hear(self) -> None:
        try:
            said = self._control.recv(1024)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._loop.remove_reader(self._control.fileno())
            self._gone.set()

    async def _end(self) -> int:
        await self._gone.wait()
        self._control.close()
        code = await self._reap()
        if code < 0 and self._marker is not None:
            # It was killed, so nobody has cleaned up below it.
            await asyncio.to_thread(end_run, self._marker)
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
    """A file without a name, so that nothing has to be removed, whoever dies."""
    if not text:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(text.encode("utf-8", "replace"))
        file.flush()
        file.seek(0)
        yield file


def _spawn(
    executable: Path,
    launch: Launch,
    environment: Mapping[str, str],
    cwd: Path,
    control: int,
    prompt: IO[bytes] | None,
) -> subprocess.Popen[bytes]:
    kept = [] if prompt is None else [prompt.fileno()]
    prompt_file = Path(f"/dev/fd/{kept[0]}") if kept else None
    return subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
            *(str(control), str(kept[0] if kept else -1), "--"),
            *command_line(executable, launch, prompt_file),
        ],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd=cwd,
        pass_fds=(control, *kept),
        start_new_session=True,
    )
