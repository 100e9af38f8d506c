"""A running Claude process, from its start until all its processes are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.claude.arguments import Launch, command_line
from agent.claude.diagnosis import credential_refused
from agent.claude.events import read_line
from agent.claude.prompts import user_line
from agent.claude.result import result_of
from agent.claude.run_state import RunState
from agent.claude.session_files import SessionFiles, holds_message, usage_so_far
from agent.process.child import SupervisedChild
from agent.process.lines import Output, StreamReading
from agent.process.stdin import InputPipe
from agent.protocol import AgentLine, AgentResult
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import Usage
from sandbox.containment import Containment, Reach, Uncontained
from sandbox.gateway import Passage
from sandbox.supervision import supervisor
from sandbox.supervision.limits import Limits
from sandbox.supervision.supervised import Supervised

_SUPERVISOR_TIMEOUT = supervisor.KILLING + 5.0
"""Seconds after the grace period until the supervisor itself counts as unresponsive."""

STOP_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL, in which the CLI writes its usage to the session file.
A host that is cut off must stop its jobs within the heartbeat timeout, see `host.slots.fence`."""

_DRAIN_SECONDS = 2.0
"""How long the pipes may stay open after the last known process has ended. They close at once
unless a process escaped the supervisor."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a Claude process is contained.

    Args:
        containment: the kind of sandbox.
        reach: the accessible files.
        limits: for the process and all its descendants.
        passage: the proxy to the network; None to use the host's network.
    """

    containment: Containment
    reach: Reach
    limits: Limits = field(default_factory=Limits)
    passage: Passage | None = None

    def around(self, command: list[str]) -> Supervised:
        """Return the command as the supervisor must run it."""
        ports = self.passage.ports if self.passage else []
        return self.containment.supervised(command, self.reach, ports, self.limits)


class ClaudeProcess:
    """The `CodingAgent` of Claude Code; create it with `start`.

    Leaving the `async with` block stops the process and closes every pipe.
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
        self._used_before = used_before
        self._state = RunState()
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
        """Start the CLI in `cwd` with exactly this environment.

        `used_before` is the usage of the session that is resumed. If the executable cannot be
        started, the exit code is 127 and stderr has the reason.

        Raises:
            OSError: `cwd` does not exist, or the host has reached its process limit.
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
        """Process id of the supervisor; SIGTERM to it stops the run in an orderly way."""
        return self._child.pid

    @property
    def is_between_turns(self) -> bool:
        """Whether the CLI has finished a turn and has nothing to do."""
        return self._state.is_between_turns

    @property
    def hopeless(self) -> JobFailure | None:
        """Why further retries of the CLI cannot succeed; normally None."""
        return credential_refused(self._state)

    async def session_file(self) -> bytes | None:
        """Read the session file."""
        return await asyncio.to_thread(self._session.read)

    async def known_messages(self, session_file: bytes, message_ids: Collection[str]) -> set[str]:
        """Return which of the messages the session file contains."""
        return await asyncio.to_thread(_known_messages, session_file, message_ids)

    async def result(
        self, exit_code: int, stopped_for: JobFailure | None, session_file: bytes
    ) -> AgentResult:
        """Return the outcome of the process, which has ended."""
        self._state.stopped_for = self._sandbox_failure() or stopped_for
        used = await asyncio.to_thread(usage_so_far, session_file)
        return result_of(exit_code, self._state, self._used_before, used)

    async def used(self) -> Usage:
        """Return the usage of this process; accurate once it has stopped."""
        return await asyncio.to_thread(_usage, self._session) - self._used_before

    async def send(self, message_id: str, text: str) -> bool:
        """Write a user message; return whether the process can still read it.

        Args:
            message_id: a UUID; the CLI uses it in acknowledgements and in its session file.
            text: reaches the model unchanged, except for a heading before a text that the CLI
                would treat as a command.
        """
        return await self._input.write(user_line(message_id, text))

    def close_input(self) -> None:
        """Announce that no message follows: the CLI exits after its turn. Idempotent."""
        self._input.close()

    async def output(self) -> AsyncIterator[AgentLine]:
        """Iterate over the lines of both streams until they end; each line is yielded once."""
        async for raw in self._output:
            line, event = read_line(raw)
            if event is None:
                self._state.add_stderr(raw.text)
            else:
                self._state.add(event)
            yield line

    async def wait(self) -> int:
        """Return the exit code when no process of the run is left.

        It is 128 + N if signal N ended the CLI, and negative if a signal ended the supervisor.
        """
        return await self._child.ended()

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """Send SIGTERM to the CLI, and after `grace` seconds SIGKILL to all remaining processes.

        Returns when no process of the run is left. Idempotent, in any state; the output need not
        be read. If this call is cancelled, the run is still stopped.
        """
        self._child.control.ask_to_stop(grace)
        try:
            async with asyncio.timeout(grace + _SUPERVISOR_TIMEOUT):
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

    def _sandbox_failure(self) -> JobFailure | None:
        """Return the failure if the sandbox ended the process or could not start it."""
        control = self._child.control
        if control.limit is not None:
            code = FailureCode.JOB_LIMIT_EXCEEDED
            return JobFailure(code, f"The job was stopped. {control.limit} {code.remedy}")
        if control.has_no_sandbox:
            return JobFailure(FailureCode.SANDBOX_UNAVAILABLE)
        return None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        stdin, stdout, stderr = self._child.pipes
        await loop.connect_write_pipe(lambda: self._input, stdin)
        await loop.connect_read_pipe(lambda: StreamReading("stdout", self._output), stdout)
        await loop.connect_read_pipe(lambda: StreamReading("stderr", self._output), stderr)

    async def _close_after_end(self) -> None:
        await self._child.ended()
        self._output.release()
        await asyncio.sleep(_DRAIN_SECONDS)
        self._input.abort()
        self._output.close()


def _known_messages(session_file: bytes, message_ids: Collection[str]) -> set[str]:
    return {message_id for message_id in message_ids if holds_message(session_file, message_id)}


def _usage(session: SessionFiles) -> Usage:
    return usage_so_far(session.read() or b"")
