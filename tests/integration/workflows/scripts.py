"""What a test wants to happen in a job's activities, and what did."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

from domain.jobs import JobStatus

Step = Callable[[Any], Awaitable[Any]]


class Life:
    """How long the worker process lasts that holds the slot."""

    def __init__(self) -> None:
        self.stops = asyncio.Event()
        self.is_silent = False


class Script:
    """The activities of one workflow.

    Args:
        machines: the names of the processes that grant its leases; the last one grants the rest.
            What follows a dash tells a process from an earlier one on the same machine.

    `asked` are the task queues in which slots were asked for.
    """

    def __init__(self, *machines: str) -> None:
        self.machines = deque(machines or ("a",))
        self.calls: list[str] = []
        self.requests: dict[str, list[Any]] = {}
        self.row = JobStatus.QUEUED
        self.endings: list[Any] = []
        self.inbox: list[str] | None = None
        self.seen: list[str] = []
        self.life = Life()
        self.machine = ""
        self.asked: list[str] = []
        self.dead: set[str] = set()
        self._planned: dict[str, deque[Step]] = {}
        self._gates: list[Gate] = []

    def plan(self, activity: str, *steps: Step) -> None:
        """Let the next calls of an activity do this; those after them succeed as usual."""
        self._planned.setdefault(activity, deque()).extend(steps)
        self._gates += [step for step in steps if isinstance(step, Gate)]

    async def play(self, activity: str, request: Any, usual: Step) -> Any:
        self.calls.append(activity)
        self.requests.setdefault(activity, []).append(request)
        planned = self._planned.get(activity)
        return await (planned.popleft() if planned else usual)(request)

    def stop_machine(self) -> None:
        """Let the worker that holds the slot stop, after its grace for draining."""
        self._end_of_life().stops.set()

    def crash_machine(self) -> None:
        """Let the worker that holds the slot fall silent, with everything that runs on it."""
        self.dead.add(self.machine)
        self._end_of_life().is_silent = True

    def end(self) -> None:
        """Let everything end that still runs."""
        self.stop_machine()
        for gate in self._gates:
            gate.open()

    def _end_of_life(self) -> Life:
        life, self.life = self.life, Life()
        return life

    def next_machine(self) -> str:
        return self.machines.popleft() if len(self.machines) > 1 else self.machines[0]

    def count(self, activity: str) -> int:
        return Counter(self.calls)[activity]

    @property
    def steps(self) -> list[str]:
        """The calls without those that stop what runs, which may come at any time."""
        return [call for call in self.calls if call != "stop_work"]

    @property
    def work(self) -> list[str]:
        """The calls that do something for the job, without taking and giving back its slots."""
        about_machines = {"hold_slot", "release_slot", "stop_work", "find_host_queue"}
        return [call for call in self.calls if call not in about_machines]


def give(value: Any = None) -> Step:
    """A step that returns a value."""

    async def given(request: Any) -> Any:
        return value

    return given


def fail(error: Exception) -> Step:
    """A step that raises an error."""

    async def failing(request: Any) -> Any:
        raise error

    return failing


class Gate:
    """A step that, once begun, does not end before the test opens it."""

    def __init__(self, then: Step | None = None) -> None:
        self._then = then or give()
        self._begun = asyncio.Event()
        self._open = asyncio.Event()

    async def __call__(self, request: Any) -> Any:
        self._begun.set()
        await self._open.wait()
        return await self._then(request)

    async def begun(self) -> None:
        """Wait until the step has begun."""
        await asyncio.wait_for(self._begun.wait(), 20)

    def open(self) -> None:
        self._open.set()
