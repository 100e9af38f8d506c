"""Check whether the store, Temporal and the workers answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from domain.errors import DependencyFailed, DependencyUnavailable
from domain.hosts import HOST_LIVE_FOR, Host
from domain.job_details import Queue
from domain.timestamps import utc_now
from store.protocol import Store
from temporal.job_commands import Dispatch

CACHED_FOR = timedelta(seconds=1)
ANSWER_WITHIN = timedelta(seconds=3)
"""Load balancers wait for a few seconds at most, so a slower dependency counts as down."""


@dataclass(frozen=True, slots=True)
class Health:
    """One reading. `queue` is None, and `hosts` is empty, when the store does not answer."""

    queue: Queue | None
    hosts: list[Host]
    temporal: bool

    @property
    def problems(self) -> list[str]:
        """A sentence for each problem."""
        checks = (
            (self.queue is not None, "The store does not answer."),
            (self.temporal, "Temporal does not answer."),
            (self.queue is None or bool(self.hosts), "No worker is running."),
        )
        return [sentence for is_ok, sentence in checks if not is_ok]


class HealthChecks:
    """Takes readings. Callers within a second share one: anyone can call the route, at no cost."""

    def __init__(self, store: Store, dispatch: Dispatch) -> None:
        self._store = store
        self._dispatch = dispatch
        self._reading: asyncio.Task[Health] | None = None
        self._read_at = 0.0

    async def read(self) -> Health:
        """Return a reading at most a second old."""
        now = asyncio.get_running_loop().time()
        stale = now - self._read_at > CACHED_FOR.total_seconds()
        if self._reading is None or (stale and self._reading.done()):
            self._read_at = now
            self._reading = asyncio.create_task(self._take())
        return await asyncio.shield(self._reading)

    async def _take(self) -> Health:
        (queue, hosts), temporal = await asyncio.gather(
            self._read_store(), self._dispatch.is_reachable()
        )
        return Health(queue, hosts, temporal)

    async def _read_store(self) -> tuple[Queue | None, list[Host]]:
        try:
            async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
                hosts = await self._store.live_hosts(utc_now() - HOST_LIVE_FOR)
                return await self._store.queue(limit=0), hosts
        except (DependencyUnavailable, DependencyFailed, TimeoutError):
            return None, []


def newest_hosts(hosts: list[Host]) -> list[Host]:
    """Return one report for each host: the report of its newest process."""
    newest: dict[str, Host] = {}
    for host in hosts:
        newest.setdefault(host.id, host)
    return list(newest.values())


def slots(hosts: list[Host]) -> int:
    """Return how many jobs these hosts run at once."""
    return sum(host.slots for host in newest_hosts(hosts))
