"""One turn of a conversation, or an entire code job, in one agent process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from agent.message_queue import MessageQueue, UserMessage, resolve
from agent.message_tracking import MessageTracker
from agent.process.idle_detector import IdleDetector
from agent.protocol import AgentLine, AgentResult, CodingAgent
from domain.errors import JobFailure, timed_out
from domain.failures import TimeLimit

EXIT_TIMEOUT = 10.0
"""Seconds that a CLI may keep running after its last result; it needs 0.06 s (measured)."""


@dataclass(frozen=True, slots=True)
class TurnLimit:
    """How long a process may run, and the time limit to report when it runs longer."""

    seconds: float
    clock: TimeLimit


@dataclass(frozen=True, slots=True)
class TurnReport:
    """How the process ended.

    `consumed` are the ids of the messages that are part of the conversation; all others must be
    sent again. `seconds` is the time until the process was gone. `session_file` is its content
    after the end.
    """

    result: AgentResult
    exit_code: int
    consumed: list[str]
    seconds: float
    session_file: bytes | None


async def run_turn(
    agent: CodingAgent,
    initial_messages: list[UserMessage],
    *,
    keep_open: bool,
    on_line: Callable[[AgentLine], Awaitable[None]],
    queue: MessageQueue,
    exit_timeout: float = EXIT_TIMEOUT,
    silence: float | None = None,
    limit: TurnLimit | None = None,
) -> TurnReport:
    """Send messages, pass every line to `on_line`, and wait until the process has ended.

    Args:
        agent: just started. The caller stops it if this call raises or is cancelled.
        initial_messages: at least one.
        keep_open: whether messages of `queue` are sent to this process while it runs. The turn
            then ends when every message that was sent has been handled.
        on_line: called in order, one line at a time. A slow callback slows the process down.
        queue: always closed when this call returns or raises.
        exit_timeout: seconds that the process may keep running after its last result.
        silence: seconds without output and CPU use after which the process is stopped and
            TIMED_OUT is reported; see `IdleDetector`. None for no limit.
        limit: stops the process in the same way, whether or not it is active.
    """
    began = time.monotonic()
    turn = _Turn(agent, queue, exit_timeout)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(turn.send_messages(initial_messages, keep_open=keep_open)),
                group.create_task(turn.stop_when_done()),
                group.create_task(turn.stop_when_idle(silence)),
                group.create_task(turn.stop_at_limit(limit)),
            ]
            async for line in agent.output():
                turn.observe(line)
                with turn.reader_busy():
                    await on_line(line)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as group_error:
        # Callers catch the errors of their `on_line` by type.
        first_error = group_error.exceptions[0]
        raise first_error from first_error.__cause__
    finally:
        queue.close()
        turn.messages.fail_rest()
    exit_code = await agent.wait()
    seconds = time.monotonic() - began
    session_file = await agent.session_file()
    saved = session_file or b""
    known = await agent.known_messages(saved, turn.messages.started)
    return TurnReport(
        result=await agent.result(exit_code, turn.stopped_for, saved),
        exit_code=exit_code,
        consumed=turn.consumed(known),
        seconds=seconds,
        session_file=session_file,
    )


class _Turn:
    """The state of a turn while its process runs."""

    def __init__(self, agent: CodingAgent, queue: MessageQueue, exit_timeout: float) -> None:
        self.messages = MessageTracker()
        self.stopped_for: JobFailure | None = None
        self._agent = agent
        self._queue = queue
        self._exit_timeout = exit_timeout
        self._idle = IdleDetector(agent.pid)
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def reader_busy(self) -> Iterator[None]:
        """Exclude the time of the block from the silence of the process."""
        try:
            with self._idle.reader_busy():
                yield
        finally:
            self._changed.set()

    def observe(self, line: AgentLine) -> None:
        """Update the state with a line of output."""
        if line.shows_progress:
            self._idle.record_output()
        if line.event is not None:
            self.messages.observe(line.event)
        self._changed.set()

    @property
    def _is_done(self) -> bool:
        return self._agent.is_between_turns and self.messages.is_done and self._queue.is_empty

    def consumed(self, known: set[str]) -> list[str]:
        """Return the messages in the conversation. `known` are those in the session file."""
        consumed = known | set(self.messages.completed)
        return [message_id for message_id in self.messages.sent_ids if message_id in consumed]

    async def send_messages(self, initial_messages: list[UserMessage], *, keep_open: bool) -> None:
        """Write the initial messages, then those of the queue."""
        for message in initial_messages:
            self.messages.sent(message, None)
            await self._agent.send(message.id, message.text)
        if not keep_open:
            self._queue.close()
            self._agent.close_input()
            return
        while (queued := await self._queue.get()) is not None:
            message, accepted = queued
            if message.id in self.messages.sent_ids:
                resolve(accepted, accepted=True)
                continue
            self.messages.sent(message, accepted)
            if not await self._agent.send(message.id, message.text):
                self.messages.failed(message.id)

    async def stop_when_done(self) -> None:
        """Close the input when all work is done; stop a process that does not exit then.

        A process that cannot finish its turn is stopped at once.
        """
        while True:
            self._changed.clear()
            if failure := self._agent.hopeless:
                return await self._stop_for(failure)
            if self._is_done:
                self._queue.close()
                self._agent.close_input()
            should_exit = self._agent.is_between_turns and not self._idle.is_reader_busy
            try:
                async with asyncio.timeout(self._exit_timeout if should_exit else None):
                    await self._changed.wait()
            except TimeoutError:
                if self._idle.is_reader_busy:
                    continue
                return await self._agent.stop()

    async def stop_when_idle(self, limit: float | None) -> None:
        """Stop a process that has been idle for `limit` seconds."""
        if limit is not None:
            await self._idle.wait_until_idle(limit)
            await self._stop_for(timed_out(TimeLimit.SILENCE))

    async def stop_at_limit(self, limit: TurnLimit | None) -> None:
        """Stop a process that has reached its time limit."""
        if limit is not None:
            await asyncio.sleep(limit.seconds)
            await self._stop_for(timed_out(limit.clock))

    async def _stop_for(self, failure: JobFailure) -> None:
        self.stopped_for = failure
        await self._agent.stop()
