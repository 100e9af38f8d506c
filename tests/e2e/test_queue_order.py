"""Twenty jobs on two slots: never three at once, and in the order of posting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import processes
from tests.e2e.steps import say, write
from tests.stack import OWNER, Json, Stack, eventually, running_stack

JOBS = 20
SLOTS = 2


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root: Path = tmp_path_factory.mktemp("queue")
    with running_stack(root, MAX_CONCURRENT_JOBS=str(SLOTS)) as stack:
        yield stack


@dataclass
class Samples:
    """Samples of the queue until `stop` is called."""

    stack: Stack
    queues: list[Json] = field(default_factory=list)
    healths: list[Json] = field(default_factory=list)
    clis: list[int] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        assert self.failed == []

    def _run(self) -> None:
        headers = dict(self.stack.http.headers)
        with httpx.Client(
            base_url=self.stack.url, headers=headers, timeout=60, trust_env=False
        ) as http:
            try:
                while not self._stopped.wait(0.05):
                    self._take(http)
            except (httpx.HTTPError, KeyError, ValueError) as error:
                self.failed.append(error)

    def _take(self, http: httpx.Client) -> None:
        self.queues.append(http.get("/queue").json())
        self.healths.append(http.get("/health").json()["queue"])
        self.clis.append(len(set(self._sessions())))

    def _sessions(self) -> Iterator[bytes]:
        """Yield the session of each CLI process. A forking process appears twice."""
        root = str(self.stack.root).encode()
        for process in processes():
            words = process.command.split(b"\0")
            is_ours = root in process.environment and b"--session-id" in words
            if is_ours and b"supervisor.py" not in process.command:
                yield words[words.index(b"--session-id") + 1]


def test_jobs_start_in_order_and_never_exceed_the_slots(own_stack: Stack):
    client, name = own_stack.new_repository()
    step = write("a.txt", "a") | {"delay": 0.3}
    bodies = [
        {
            "clientId": client,
            "prompt": own_stack.script([step, say("Done.")]),
            "branchName": f"feature/{number}",
        }
        for number in range(JOBS)
    ]
    samples = Samples(own_stack)
    posted = [own_stack.call("POST", "/jobs", body, 201) for body in bodies]
    ids = [job["id"] for job in posted]

    def all_ended() -> bool:
        listed = own_stack.call("GET", "/jobs?status=completed,failed,cancelled")
        return bool(listed["total"] == JOBS)

    eventually(all_ended, 110, "all jobs have ended")
    samples.stop()

    jobs = [own_stack.job(job_id) for job_id in ids]
    assert {job["status"] for job in jobs} == {"completed"}
    started = sorted(jobs, key=lambda job: str(job["started_at"]))
    assert [job["id"] for job in started] == ids
    assert len(own_stack.github.pull_requests(OWNER, name)) == JOBS
    assert {job["lease"] for job in jobs} == {1}

    assert max(samples.clis) == SLOTS
    assert max(len(queue["running"]) for queue in samples.queues) == SLOTS
    assert max(health["running"] for health in samples.healths) == SLOTS
    assert max(health["queued"] for health in samples.healths) >= JOBS / 2
    assert {health["maxConcurrent"] for health in samples.healths} == {SLOTS}
    assert_positions_fall(samples, ids)
    assert_positions_when_posted(posted)


def assert_positions_fall(samples: Samples, ids: list[str]) -> None:
    """Check that the queue has the jobs in the order of posting, and that no job moves back."""
    last = {job_id: JOBS for job_id in ids}
    for queue in samples.queues:
        queued = [entry["id"] for entry in queue["queued"]]
        assert queued == [job_id for job_id in ids if job_id in queued]
        assert [entry["position"] for entry in queue["queued"]] == list(range(1, len(queued) + 1))
        for position, job_id in enumerate(queued, 1):
            assert position <= last[job_id]
            last[job_id] = position
        assert queue["totals"]["queued"] == len(queued)
        assert queue["totals"]["running"] == len(queue["running"])


def assert_positions_when_posted(posted: list[Json]) -> None:
    """Check that each job got a position after the waiting jobs; some may have started since."""
    positions = [job["position"] for job in posted]
    assert positions[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(positions))
    assert positions[-1] >= JOBS / 2


def test_an_idle_queue_is_empty(own_stack: Stack):
    queue = own_stack.call("GET", "/queue")
    assert (queue["running"], queue["waiting"], queue["queued"]) == ([], [], [])

    def is_zero() -> bool:
        counts = own_stack.call("GET", "/health")["queue"]
        return [counts[name] for name in ("running", "waiting", "queued")] == [0, 0, 0]

    eventually(is_zero, 10, "health counts nothing")
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        assert own_stack.pids("--session-id") == []
        time.sleep(0.2)
