from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from agent.process.marker import MARKER_NAME, Marker
from agent.process.orphans import kill_orphans, kill_run


@contextmanager
def sleeping(marker: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {MARKER_NAME: marker}
    with subprocess.Popen(["/bin/sleep", "300"], env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def test_only_orphans_of_this_installation_are_killed() -> None:
    data = uuid.uuid4().hex
    with (
        sleeping(f"{data}/dead/job") as orphan,
        sleeping(f"{data}/alive/job") as living,
        sleeping(f"{data}other/dead/job") as foreign,
        sleeping("garbage") as garbage,
    ):
        assert kill_orphans(data, lambda boot: boot == "alive") == [orphan.pid]
        assert orphan.wait(5) == -9
        assert [process.poll() for process in (living, foreign, garbage)] == [None] * 3
        assert kill_orphans(data, lambda boot: boot == "alive") == []


def test_kill_run_kills_one_run() -> None:
    data = uuid.uuid4().hex
    with sleeping(f"{data}/b/one") as one, sleeping(f"{data}/b/two") as two:
        assert kill_run(Marker(data, "b", "one")) == [one.pid]
        assert one.wait(5) == -9
        assert two.poll() is None
