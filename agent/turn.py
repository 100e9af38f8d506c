"""One turn of a conversation, or the whole of a code job, in one Claude process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from agent.claude.diagnosis import credential_refused
from agent.claude.process import ClaudeProcess
from agent.claude.result import AgentResult, result_of
from agent.claude.run_state import RunState
from agent.claude.session_files import holds_message
from agent.message_queue import MessageQueue, UserMessage, settle
from agent.message_tracking import MessageTracker
from agent.process.idle_detector import IdleDetector
from agent.process.lines import OutputLine
from domain.errors import JobFailure, timed_out
from domain.failures import TimeLimit

EXIT_TIMEOUT = 10.0
"""Seconds a CLI may live on after its last result; it takes 0.06 s to exit (measured)."""


@dataclass(frozen=True, slots=True)
class TurnLimit:
    """How long a process may run, and the clock that it runs into then."""

    seconds: float
    clock: TimeLimit


@dataclass(frozen=True, slots=True)
class TurnReport:
    """How the process ended.

    `consumed` are the ids of the messages that the CLI took up, so that they are in the
    conversation; others must be sent again. `seconds` is the time until the process was gone.
    """

    result: AgentResult
    exit_code: int
    consumed: list[str]
    seconds: float


async def run_turn(
    process: ClaudeProcess,
    first: list[UserMessage],
    *,
    keep_open: bool,
    on_line: Callable[[OutputLine], Awaitable[None]],
    queue: MessageQueue,
    exit_timeout: float = EXIT_TIMEOUT,
    silence: float | None = None,
    limit: TurnLimit | None = None,
) -> TurnReport:
    """Send messages, hand every line to `on_line`, and wait until the process has ended.

    Args:
        process: just started; the caller stops it when this raises or is cancelled.
        first: at least one message.
        keep_open: whether messages offered to `queue` meanwhile still reach this process. It ends
            when a turn has ended and every message it was given is done.
        on_line: called in order, one line at a time; a slow one holds the process back.
        queue: closed by the time this returns, in every case.
        exit_timeout: seconds the process may live on after its last result before it is stopped.
        silence: seconds it may neither say anything nor use the processor before it is stopped,
            which the verdict tells as TIMED_OUT; see `IdleDetector`. None is no limit.
        limit: after which it is stopped whatever it does, told in the same way.
    """
    began = time.monotonic()
    turn = _Turn(process, queue, exit_timeout)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(turn.feed(first, keep_open=keep_open)),
                group.create_task(turn.end_when_done()),
                group.create_task(turn.end_when_silent(silence)),
                group.create_task(turn.end_in_time(limit)),
            ]
            async for line in process.output():
                turn.note(line)
                with turn.at_work():
                    await on_line(line)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as group_error:
        # Callers know the errors of their `on_line` by type.
        first_error = group_error.exceptions[0]
        raise first_error from first_error.__cause__
    finally:
        queue.close()
        turn.delivery.fail_rest()
    exit_code = await process.wait()
    turn.state.stopped_for = process.prevented or turn.state.stopped_for
    seconds = time.monotonic() - began
    used = await process.usage()
    return TurnReport(
        result=result_of(exit_code, turn.state, process.used_before, used),
        exit_code=exit_code,
        consumed=await turn.consumed(),
        seconds=seconds,
    )


class _Turn:
    """What is known while the process runs."""

    def __init__(self, process: ClaudeProcess, queue: MessageQueue, exit_timeout: float) -> None:
        self.process = process
        self.queue = queue
        self.exit_timeout = exit_timeout
        self.state = RunState()
        self.delivery = MessageTracker()
        self._clock = IdleDetector(process.pid)
        self._news = asyncio.Event()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Mark that silence now is the reader's, not the process's."""
        try:
            with self._clock.held():
                yield
        finally:
            self._news.set()

    def note(self, line: OutputLine) -> None:
        """Take in one line; may find that the turn is over."""
        self.state.add(line)
        if line.carries_something:
            self._clock.hear()
        if line.event is not None:
            self.delivery.note(line.event)
        self._news.set()

    @property
    def _is_done(self) -> bool:
        return self.state.is_between_turns and self.delivery.is_done and self.queue.is_empty

    async def consumed(self) -> list[str]:
        """List what is in the conversation, now that the process has ended."""
        started = self.delivery.started
        transcript = await self.process.transcript() if started else None
        kept = await asyncio.to_thread(_held, transcript or b"", started)
        taken = kept | set(self.delivery.completed)
        return [message_id for message_id in self.delivery.sent_ids if message_id in taken]

    async def feed(self, first: list[UserMessage], *, keep_open: bool) -> None:
        """Write the first messages, then those that are offered."""
        for message in first:
            self.delivery.sent(message, None)
            await self.process.send(message.id, message.text)
        if not keep_open:
            self.queue.close()
            self.process.close_input()
            return
        while (offer := await self.queue.fetch()) is not None:
            message, answer = offer
            if message.id in self.delivery.sent_ids:
                settle(answer, accepted=True)
                continue
            self.delivery.sent(message, answer)
            if not await self.process.send(message.id, message.text):
                self.delivery.failed(message.id)

    async def end_when_done(self) -> None:
        """Close the input when nothing is left to do, and stop a process that then hangs.

        One whose credential is refused is stopped at once.
        """
        while True:
            self._news.clear()
            if failure := credential_refused(self.state):
                return await self._stop_for(failure)
            if self._is_done:
                self.queue.close()
                self.process.close_input()
            is_due = self.state.is_between_turns and not self._clock.is_held
            patience = self.exit_timeout if is_due else None
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                if self._clock.is_held:
                    continue
                return await self.process.stop()

    async def end_when_silent(self, limit: float | None) -> None:
        """Stop a process that was silent for so many seconds."""
        if limit is not None:
            await self._clock.runs_out(limit)
            await self._stop_for(timed_out(TimeLimit.SILENCE))

    async def end_in_time(self, limit: TurnLimit | None) -> None:
        """Stop a process whose time is over."""
        if limit is not None:
            await asyncio.sleep(limit.seconds)
            await self._stop_for(timed_out(limit.clock))

    async def _stop_for(self, failure: JobFailure) -> None:
        self.state.stopped_for = failure
        await self.process.stop()


def _held(transcript: bytes, message_ids: list[str]) -> set[str]:
    return {message_id for message_id in message_ids if holds_message(transcript, message_id)}
