"""One running Claude process, from its start until nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.claude.arguments import Launch, command_line
from agent.claude.session_files import SessionFiles, usage_so_far
from agent.process.child import SupervisedChild
from agent.process.lines import Output, OutputLine, StreamReading
from agent.process.stdin import InputPipe, user_line
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import Usage
from sandbox.containment import Containment, Reach, Uncontained
from sandbox.gateway import Passage
from sandbox.supervision import supervisor
from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Supervised

_BEYOND_GRACE = supervisor.KILLING + 5.0
"""Seconds beyond the grace after which the supervisor itself is taken to hang."""


_DRAINING = 2.0
"""Seconds for the pipes to end after the last process has; needed only where one escaped."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """How one Claude process is contained.

    Args:
        containment: the way.
        reach: the files that it reaches.
        limits: of it and all that it starts.
        passage: its way to the network; None for the host's own network.
    """

    containment: Containment
    reach: Reach
    limits: Limits = field(default_factory=Limits)
    passage: Passage | None = None

    def around(self, command: list[str]) -> Supervised:
        """Return how the supervisor runs a command."""
        ports = self.passage.ports if self.passage else []
        return self.containment.supervised(command, self.reach, ports, self.limits)


class ClaudeProcess:
    """A Claude process behind its supervisor; made by `start`.

    Its methods may be called from any asyncio task of the loop that started it; `output` by one at
    a time. Leaving the `async with` block stops it and lets go of every pipe.
    """

    def __init__(
        self,
        child: SupervisedChild,
        session: SessionFiles,
        used_before: Usage,
        passage: Passage | None,
    ) -> None:
        self._child = child
        self._serving = asyncio.create_task(passage.serve(child.control)) if passage else None
        self._session = session
        self.used_before = used_before
        self._output = Output()
        self._input = InputPipe()
        self._closing = asyncio.create_task(self._close_after_end())

    @classmethod
    async def start(
        cls,
        executable: Path,
        launch: Launch,
        environment: Mapping[str, str],
        cwd: Path,
        confinement: Confinement | None = None,
        used_before: Usage | None = None,
    ) -> Self:
        """Start the CLI in `cwd` with exactly this environment, contained unless that is None.

        `used_before` is the usage of the session that is resumed. An executable that cannot be
        started ends with exit code 127 and a line on stderr.

        Raises:
            OSError: `cwd` does not exist, or the machine has no room for another process.
        """
        session = SessionFiles.of(environment, cwd, launch.session_id)
        contained = confinement or Confinement(Uncontained(), Reach((cwd,)))
        child = SupervisedChild.start(
            lambda prompt: contained.around(command_line(executable, launch, prompt)),
            launch.system_prompt,
            environment,
            cwd,
        )
        process = cls(child, session, used_before or Usage(), contained.passage)
        try:
            await process._connect()
        except BaseException:
            await process.__aexit__(None, None, None)
            raise
        return process

    @property
    def pid(self) -> int:
        """The supervisor's process id; SIGTERM to it ends the whole run in order."""
        return self._child.pid

    @property
    def prevented(self) -> JobFailure | None:
        """Why the sandbox has not let it run to its end; None when it has."""
        control = self._child.control
        if control.limit is not None:
            code = FailureCode.JOB_LIMIT_EXCEEDED
            return JobFailure(code, f"The job was stopped. {control.limit} {code.remedy}")
        if control.has_no_sandbox:
            return JobFailure(FailureCode.SANDBOX_UNAVAILABLE)
        return None

    async def transcript(self) -> bytes | None:
        """Read the session's transcript as it is on disk now."""
        return await asyncio.to_thread(self._session.read)

    async def used(self) -> Usage:
        """Read from the session file how much this process has used, after it has ended."""
        return await asyncio.to_thread(_usage, self._session) - self.used_before

    async def send(self, message_id: str, text: str) -> bool:
        """Write one user message; returns whether the process could still take it.

        Args:
            message_id: a UUID; the CLI names it in `MessageTaken` and in its transcript.
            text: reaches the model as it is, save for a heading before what the CLI would take
                for a command of its own.
        """
        return await self._input.write(user_line(message_id, text))

    def close_input(self) -> None:
        """Tell the CLI that no message follows: it ends after its turn. Repeatable."""
        self._input.close()

    def output(self) -> AsyncIterator[OutputLine]:
        """Iterate over the lines of both streams until they end; each line is given once."""
        return self._output

    async def wait(self) -> int:
        """Return the exit code once no process of the run is left.

        128 + N when signal N ended the CLI; negative when one ended the supervisor.
        """
        return await self._child.ended()

    async def stop(self, grace: float = 5.0) -> None:
        """End the run: SIGTERM to the CLI, SIGKILL to all that is left after `grace` seconds.

        Returns when no process of the run is left. Repeatable, in any state, while another
        asyncio task reads the output, and whether or not anybody does. When it is cancelled, the
        run ends nevertheless.
        """
        self._child.control.ask_to_stop(grace)
        try:
            async with asyncio.timeout(grace + _BEYOND_GRACE):
                await self.wait()
        except TimeoutError:
            self._child.kill()
            await self.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
            if self._serving is not None:
                await self._serving
        finally:
            self._closing.cancel()
            self._input.abort()
            self._output.close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        stdin, stdout, stderr = self._child.pipes
        await loop.connect_write_pipe(lambda: self._input, stdin)
        await loop.connect_read_pipe(lambda: StreamReading("stdout", self._output), stdout)
        await loop.connect_read_pipe(lambda: StreamReading("stderr", self._output), stderr)

    async def _close_after_end(self) -> None:
        await self._child.ended()
        self._output.release()
        await asyncio.sleep(_DRAINING)
        self._input.abort()
        self._output.close()


def _usage(session: SessionFiles) -> Usage:
    return usage_so_far(session.read() or b"")
