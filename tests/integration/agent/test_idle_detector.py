from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.process.idle_detector import cpu_seconds
from agent.protocol import AgentLine
from agent.turn import TurnReport
from domain.failures import FailureCode, TimeLimit
from fakes.anthropic.steps import Step
from tests.integration.agent.conftest import Lines, ScriptedJob, until

SILENCE = 0.8
"""Seconds; the tests of an active process last several times as long."""

RESULT = json.dumps(
    {"type": "result", "subtype": "success", "is_error": False, "result": "Done.", "num_turns": 1}
)
OVERLOADED = json.dumps(
    {"type": "result", "subtype": "success", "is_error": True, "api_error_status": 529}
)
HEARTBEATS = [
    {"type": "tool_progress", "tool_use_id": "t", "elapsed_time_seconds": 30, "heartbeat": True},
    {"type": "keep_alive"},
    {"type": "command_lifecycle", "command_uuid": "u", "state": "queued"},
    {"type": "system", "subtype": "session_state_changed", "state": "running"},
]

COMPUTING = "import time\nwhile time.process_time() < 2.5: pass"
DETACHED = f"""
import os, pathlib, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        exec({COMPUTING!r})
        pathlib.Path("computed").touch()
    os._exit(0)
os.wait()
while not pathlib.Path("computed").exists():
    time.sleep(0.1)
print({RESULT!r})
"""


def bash(command: str) -> Step:
    return {"tools": [["Bash", {"command": command}]]}


def was_silent(report: TurnReport) -> bool:
    failure = report.result.failure
    return failure is not None and failure.clock is TimeLimit.SILENCE


@pytest.mark.parametrize(
    ("step", "tokens"),
    [(bash("python3 -c 'import time; time.sleep(300)'"), 100), (Step(drop="hang"), 0)],
    ids=["command", "model"],
)
async def test_a_process_that_waits_forever_is_stopped(
    job: ScriptedJob, step: Step, tokens: int
) -> None:
    job.script(step, {"text": "Done."})

    report = await job.turn("Go.", silence=SILENCE)

    failure = report.result.failure
    assert failure is not None
    assert failure.code is FailureCode.TIMED_OUT
    assert failure.clock is TimeLimit.SILENCE
    assert failure.message == TimeLimit.SILENCE.sentence
    assert "SILENCE_TIMEOUT_MINUTES" in failure.message
    assert not failure.transient
    assert len(report.consumed) == 1
    assert len(job.requests) == 1
    assert report.result.usage.input_tokens == tokens


@pytest.mark.parametrize("prefix", ["", "setsid --wait "], ids=["same", "own"])
async def test_a_silent_command_that_computes_is_active(job: ScriptedJob, prefix: str) -> None:
    job.script(bash(f"{prefix}python3 -c {json.dumps(f'exec({COMPUTING!r})')}"), {"text": "Done."})

    report = await job.turn("Go.", silence=SILENCE)

    assert report.result.answer == "Done."
    assert report.seconds > 2.5


async def test_a_detached_process_counts_as_activity(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    report = await fake_job(DETACHED).turn("Go.", silence=SILENCE)

    assert report.result.answer == "Done."
    assert report.seconds > 2.5


async def test_cpu_time_includes_ended_children(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    burning = [sys.executable, "-c", COMPUTING.replace("2.5", "0.5")]
    body = f"import subprocess, time; subprocess.run({burning}); open({str(ready)!r}, 'w')"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"{body}; time.sleep(300)", stdin=asyncio.subprocess.DEVNULL
    )
    try:
        await until(ready.exists)
        assert cpu_seconds(process.pid) >= 0.5
    finally:
        process.kill()
        await process.wait()

    assert cpu_seconds(process.pid) == 0


def repeating(lines: list[str], times: int, pause: float) -> str:
    return (
        "import time\n"
        f"for _ in range({times}):\n"
        f"    print(*{lines!r}, sep=chr(10))\n"
        f"    time.sleep({pause})\n"
        f"print({RESULT!r})\n"
    )


async def test_heartbeats_are_not_activity(fake_job: Callable[[str], ScriptedJob]) -> None:
    lines = ["", *map(json.dumps, HEARTBEATS)]
    report = await fake_job(repeating(lines, 200, 0.25)).turn("Go.", silence=SILENCE)

    assert was_silent(report)


@pytest.mark.parametrize("line", ['{"type":"assistant"}', '{"type":"brand_new"}', "plain"])
async def test_a_process_with_output_is_active(
    fake_job: Callable[[str], ScriptedJob], line: str
) -> None:
    report = await fake_job(repeating([line], 10, 0.25)).turn("Go.", silence=SILENCE)

    assert report.result.answer == "Done."


async def test_time_of_a_slow_reader_does_not_count_as_idle(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job(repeating(["x" * 100_000] * 30, 1, 0))

    class SlowAtFirst(Lines):
        async def __call__(self, line: AgentLine) -> None:
            if not self.all:
                await asyncio.sleep(4 * SILENCE)
            await super().__call__(line)

    report = await job.turn("Go.", lines=SlowAtFirst(), silence=SILENCE)

    assert report.result.answer == "Done."
    assert report.seconds > 4 * SILENCE


async def test_an_error_before_the_silence_is_reported(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job(f"import time\nprint({OVERLOADED!r})\ntime.sleep(300)\n")

    report = await job.turn("Go.", exit_timeout=60, silence=0.2)

    assert report.result.failure is not None
    assert report.result.failure.code is FailureCode.CLAUDE_OVERLOADED
