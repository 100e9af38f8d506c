from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable

import pytest

from agent.process import lines as output_module
from agent.process.lines import BUFFERED_BYTES, LineSplitter
from agent.protocol import TurnEnded
from tests.integration.agent.conftest import Lines, ScriptedJob, until

RESULT = '{"type":"result","subtype":"success","is_error":false,"result":"Done."}'


def split(*chunks: bytes) -> list[bytes]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return [*lines, *splitter.finish()]


def test_lines_are_split_at_newlines_only() -> None:
    text = "a\u2028b\u2029c\rd\x0be\x85f\n"
    assert split(text.encode()) == [text.encode().rstrip(b"\n")]


def test_lines_are_joined_from_chunks() -> None:
    assert split(b"a", b"b\nc", b"\n", b"\n", b"d") == [b"ab", b"c", b"", b"d"]


def test_a_line_over_the_limit_is_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "MAX_LINE_BYTES", 4)
    assert split(b"abc", b"def", b"ghi\njk\n") == [b"abcd", b"jk"]


async def test_long_lines_and_invalid_bytes_are_read(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job(
        "import sys\n"
        "out = sys.stdout.buffer\n"
        'out.write(b\'{"type":"x","a":"\' + b\'y\' * 2_000_000 + b\'"}\\n\')\n'
        'out.write(\'{"type":"z","a":"\\u2028"}\\n\'.encode())\n'
        "out.write(b'\\xff\\xfe broken\\n')\n"
        "out.flush()\n"
        "sys.stderr.write('warning')\n"
        f"print('{RESULT}', end='')\n"
    )
    lines = Lines()

    report = await job.turn("Go.", lines=lines)

    stdout = [line for line in lines.all if line.stream == "stdout"]
    assert [len(line.text) for line in stdout[:1]] == [2_000_019]
    assert json.loads(stdout[1].text)["a"] == "\u2028"
    assert stdout[2].text == "\ufffd\ufffd broken"
    assert stdout[2].event is None
    assert isinstance(stdout[3].event, TurnEnded)
    assert [line.text for line in lines.all if line.stream == "stderr"] == ["warning"]
    assert report.result.answer == "Done."


async def test_a_slow_reader_slows_the_process_down(fake_job: Callable[[str], ScriptedJob]) -> None:
    job = fake_job(
        "import pathlib\n"
        "done = pathlib.Path('count')\n"
        "for number in range(200):\n"
        "    print('x' * 100_000)\n"
        "    done.write_text(str(number))\n"
    )
    async with job.process() as process:
        await anext(process.output())
        # Without backpressure, the running event loop would read everything.
        await until(lambda: count(job) * 100_000 > BUFFERED_BYTES)
        seen = [count(job)]
        while len(seen) < 20:
            await asyncio.sleep(0.02)
            seen.append(count(job))
        assert seen[-1] * 100_000 < BUFFERED_BYTES + 600_000
        rest = [line async for line in process.output()]
        assert await process.wait() == 0

    assert len(rest) == 199
    assert {len(line.text) for line in rest} == {100_000}


def count(job: ScriptedJob) -> int:
    path = job.cwd / "count"
    return int(path.read_text() or 0) if path.exists() else 0


@pytest.mark.parametrize(
    ("obstinacy", "silence"),
    [("", None), ("", 0.1), ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 0.1)],
    ids=["hanging", "silent", "ignoring SIGTERM"],
)
async def test_a_process_that_hangs_after_its_result_is_stopped(
    fake_job: Callable[[str], ScriptedJob], obstinacy: str, silence: float | None
) -> None:
    job = fake_job(f"import signal, time\n{obstinacy}\nprint('{RESULT}')\ntime.sleep(300)\n")

    report = await job.turn("Go.", exit_timeout=0.3, silence=silence)

    assert report.result.failure is None
    assert report.result.answer == "Done."
    assert report.exit_code == 128 + (signal.SIGKILL if obstinacy else signal.SIGTERM)
    assert report.seconds < 8


async def test_time_of_a_slow_reader_does_not_count_as_hanging(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job(f"print('{RESULT}')\nprint('after')\n")

    class Slow(Lines):
        async def __call__(self, line: object) -> None:
            await asyncio.sleep(0.5)
            await super().__call__(line)  # type: ignore[arg-type]

    lines = Slow()
    report = await job.turn("Go.", lines=lines, exit_timeout=0.1)

    assert report.exit_code == 0
    assert lines.all[-1].text == "after"


async def test_an_error_of_the_reader_is_raised_unchanged(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job("import time\nprint(1)\ntime.sleep(300)\n")

    class Broken(Lines):
        async def __call__(self, line: object) -> None:
            raise LookupError("The database is gone.") from OSError("cause")

    with pytest.raises(LookupError) as caught:
        await job.turn("Go.", lines=Broken())

    assert isinstance(caught.value.__cause__, OSError)


async def test_a_cli_without_acknowledgements_still_ends_its_turn(
    fake_job: Callable[[str], ScriptedJob],
) -> None:
    job = fake_job(
        "import sys\n"
        "sys.stdin.readline()\n"
        'print(\'{"type":"system","subtype":"init","session_id":"s"}\')\n'
        f"print('{RESULT}')\n"
        "sys.stdin.read()\n"
    )

    report = await job.turn("Go.", keep_open=True, exit_timeout=20)

    assert len(report.consumed) == 1
    assert report.exit_code == 0
