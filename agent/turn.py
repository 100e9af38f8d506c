"""One turn of a conversation, or the whole of a code job, in one Claude process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from agent.claude.diagnosis import credential_refused
from agent.claude.process import ClaudeProcess
from agent.claude.result import Verdict, verdict
from agent.claude.run_state import Evidence
from agent.claude.session_files import holds_message, usage_so_far
from agent.message_queue import Inbox, UserMessage, settle
from agent.message_tracking import Delivery
from agent.process.idle_detector import IdleDetector
from agent.process.lines import OutputLine
from domain.errors import JobFailure, timed_out
from domain.failures import TimeLimit
from domain.jobs import Usage

HANGING = 10.0
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
    `session_file` is its content after the process has ended.
    """

    verdict: Verdict
    exit_code: int
    consumed: list[str]
    seconds: float
    session_file: bytes | None


async def run_turn(
    process: ClaudeProcess,
    first: list[UserMessage],
    *,
    keep_open: bool,
    on_line: Callable[[OutputLine], Awaitable[None]],
    inbox: Inbox,
    hanging: float = HANGING,
    silence: float | None = None,
    limit: TurnLimit | None = None,
) -> TurnReport:
    """Send messages, hand every line to `on_line`, and wait until the process has ended.

    Args:
        process: just started; the caller stops it when this raises or is cancelled.
        first: at least one message.
        keep_open: whether messages offered to `inbox` meanwhile still reach this process. It ends
            when a turn has ended and every message it was given is done.
        on_line: called in order, one line at a time; a slow one holds the process back.
        inbox: closed by the time this returns, in every case.
        hanging: seconds the process may live on after its last result before it is stopped.
        silence: seconds it may neither say anything nor use the processor before it is stopped,
            which the verdict tells as TIMED_OUT; see `IdleDetector`. None is no limit.
        limit: after which it is stopped whatever it does, told in the same way.
    """
    began = time.monotonic()
    turn = _Turn(process, inbox, hanging)
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
        inbox.close()
        turn.delivery.fail_rest()
    exit_code = await process.wait()
    turn.evidence.stopped_for = process.prevented or turn.evidence.stopped_for
    seconds = time.monotonic() - began
    session_file = await process.transcript()
    used, held = await asyncio.to_thread(_read_session, session_file or b"", turn.delivery.started)
    return TurnReport(
        verdict=verdict(exit_code, turn.evidence, process.used_before, used),
        exit_code=exit_code,
        consumed=turn.consumed(held),
        seconds=seconds,
        session_file=session_file,
    )


class _Turn:
    """What is known while the process runs."""

    def __init__(self, process: ClaudeProcess, inbox: Inbox, hanging: float) -> None:
        self.process = process
        self.inbox = inbox
        self.hanging = hanging
        self.evidence = Evidence()
        self.delivery = Delivery()
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
        self.evidence.add(line)
        if line.carries_something:
            self._clock.hear()
        if line.event is not None:
            self.delivery.note(line.event)
        self._news.set()

    @property
    def _is_done(self) -> bool:
        return self.evidence.is_between_turns and self.delivery.is_done and self.inbox.is_empty

    def consumed(self, held: set[str]) -> list[str]:
        """Return the messages in the conversation. `held` are those in the session file."""
        taken = held | set(self.delivery.completed)
        return [message_id for message_id in self.delivery.sent_ids if message_id in taken]

    async def feed(self, first: list[UserMessage], *, keep_open: bool) -> None:
        """Write the first messages, then those that are offered."""
        for message in first:
            self.delivery.sent(message, None)
            await self.process.send(message.id, message.text)
        if not keep_open:
            self.inbox.close()
            self.process.close_input()
            return
        while (offer := await self.inbox.fetch()) is not None:
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
            if failure := credential_refused(self.evidence):
                return await self._stop_for(failure)
            if self._is_done:
                self.inbox.close()
                self.process.close_input()
            is_due = self.evidence.is_between_turns and not self._clock.is_held
            patience = self.hanging if is_due else None
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
        self.evidence.stopped_for = failure
        await self.process.stop()


def _read_session(session_file: bytes, message_ids: list[str]) -> tuple[Usage, set[str]]:
    """Return the session's usage, and which of the messages it holds."""
    held = {message_id for message_id in message_ids if holds_message(session_file, message_id)}
    return usage_so_far(session_file), held
