from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import pytest

from domain.errors import OrchestratorError
from host.loops import for_each, run_every


async def run_until(done: asyncio.Event, loop: asyncio.Task[None]) -> None:
    async with asyncio.timeout(10):
        await done.wait()
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop


async def test_the_loop_continues_after_expected_and_unexpected_errors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[Exception] = [OrchestratorError("The store is down."), ValueError("a bug")]
    done = asyncio.Event()

    async def work() -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    await run_until(done, asyncio.create_task(run_every(timedelta(0), work, name="The work")))
    assert "The work failed and will be retried: The store is down." in caplog.text
    assert "ValueError: a bug" in caplog.text


async def test_the_loop_pauses_before_and_between_runs() -> None:
    clock = asyncio.get_running_loop().time
    began, runs, done = clock(), list[float](), asyncio.Event()

    async def work() -> None:
        runs.append(clock())
        if len(runs) == 2:
            done.set()

    pause, delay = timedelta(milliseconds=20), timedelta(milliseconds=40)
    loop = asyncio.create_task(run_every(pause, work, name="The work", delay=delay))
    await run_until(done, loop)
    assert runs[0] - began >= 0.039
    assert runs[1] - runs[0] >= 0.019


async def test_an_error_affects_only_its_item(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def work(item: str) -> None:
        seen.append(item)
        if item == "bad":
            raise KeyError(item)

    await for_each(["one", "bad", "two"], work, name="The work")
    assert seen == ["one", "bad", "two"]
    assert "The work (bad) failed" in caplog.text


async def test_a_cancellation_ends_the_loop() -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    loop = asyncio.create_task(run_every(timedelta(0), work, name="The work"))
    await started.wait()
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
