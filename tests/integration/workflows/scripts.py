"""The planned and the recorded calls of a job's activities."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

from domain.jobs import JobStatus

Step = Callable[[Any], Awaitable[Any]]


class WorkerState:
    """Whether the worker process that holds the slot stops or has died."""

    def __init__(self) -> None:
        self.stops = asyncio.Event()
        self.is_silent = False


class Script:
    """The activities of one workflow.

    Args:
        hosts: the names of the processes that grant its leases. The last one grants all later
            leases. A suffix after a dash is another process on the same host.

    `asked` are the task queues in which slots were requested.
    """

    def __init__(self, *hosts: str) -> None:
        self.hosts = deque(hosts or ("a",))
        self.calls: list[str] = []
        self.requests: dict[str, list[Any]] = {}
        self.row = JobStatus.QUEUED
        self.endings: list[Any] = []
        self.inbox: list[str] | None = None
        self.seen: list[str] = []
        self.worker_state = WorkerState()
        self.host = ""
        self.asked: list[str] = []
        self.dead: set[str] = set()
        self._planned: dict[str, deque[Step]] = {}
        self._gates: list[Gate] = []

    def plan(self, activity: str, *steps: Step) -> None:
        """Set the steps of the next calls of an activity. Later calls succeed by default."""
        self._planned.setdefault(activity, deque()).extend(steps)
        self._gates += [step for step in steps if isinstance(step, Gate)]

    async def play(self, activity: str, request: Any, default: Step) -> Any:
        self.calls.append(activity)
        self.requests.setdefault(activity, []).append(request)
        planned = self._planned.get(activity)
        return await (planned.popleft() if planned else default)(request)

    def stop_host(self) -> None:
        """Stop the worker that holds the slot, as after its drain timeout."""
        self._replace_state().stops.set()

    def crash_host(self) -> None:
        """Stop the heartbeats of the worker that holds the slot, and of all its activities."""
        self.dead.add(self.host)
        self._replace_state().is_silent = True

    def end(self) -> None:
        """End all running activities."""
        self.stop_host()
        for gate in self._gates:
            gate.open()

    def _replace_state(self) -> WorkerState:
        state, self.worker_state = self.worker_state, WorkerState()
        return state

    def next_host(self) -> str:
        return self.hosts.popleft() if len(self.hosts) > 1 else self.hosts[0]

    def count(self, activity: str) -> int:
        return Counter(self.calls)[activity]

    @property
    def steps(self) -> list[str]:
        """The calls without `stop_work`, which can come at any time."""
        return [call for call in self.calls if call != "stop_work"]

    @property
    def work(self) -> list[str]:
        """The calls without those that acquire and release slots."""
        about_hosts = {"hold_slot", "release_slot", "stop_work", "find_host_queue"}
        return [call for call in self.calls if call not in about_hosts]


def returns(value: Any = None) -> Step:
    """Return a step that returns a value."""

    async def given(request: Any) -> Any:
        return value

    return given


def raises(error: Exception) -> Step:
    """Return a step that raises an error."""

    async def failing(request: Any) -> Any:
        raise error

    return failing


class Gate:
    """A step that blocks until the test opens it."""

    def __init__(self, then: Step | None = None) -> None:
        self._then = then or returns()
        self._started = asyncio.Event()
        self._open = asyncio.Event()

    async def __call__(self, request: Any) -> Any:
        self._started.set()
        await self._open.wait()
        return await self._then(request)

    async def started(self) -> None:
        """Wait until the step has started."""
        await asyncio.wait_for(self._started.wait(), 20)

    def open(self) -> None:
        self._open.set()
