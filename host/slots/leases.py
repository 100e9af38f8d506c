"""The leases that this process holds: which jobs may use this machine, and what they run on it.

A lease is (job id, number). It is taken by `hold_slot` and ends with it; every activity that
touches the machine for a job shows its lease here first and is refused when it is not held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.message_queue import MessageQueue
from domain.errors import LeaseLost

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """Names a lease; part of every input of an activity that touches a machine."""

    job_id: str
    number: int


class Lease:
    """One job's hold on this machine, for as long as `hold_slot` runs."""

    def __init__(self, key: LeaseKey) -> None:
        self.key = key
        self.message_queue: MessageQueue | None = None
        self.ended = asyncio.Event()
        self.released = False
        self._stopped = False
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` so that `stop` can end it.

        Raises:
            LeaseLost: `stop` was called before or meanwhile.
        """
        if self._stopped:
            work.close()
            raise LeaseLost("The job was told to stop.")
        asyncio_task = asyncio.ensure_future(work)
        self._running.add(asyncio_task)
        try:
            return await asyncio_task
        except (Exception, asyncio.CancelledError) as error:
            await _finish(asyncio_task)
            # What fails while it is being stopped did not fail by itself.
            if self._stopped:
                raise LeaseLost("The job was told to stop.") from error
            raise
        finally:
            self._running.discard(asyncio_task)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, which must not be left half done: `stop` does not end it.

        Only the end of the lease does: another machine may have taken over by then.

        Raises:
            LeaseLost: the lease ended meanwhile; nothing of the work runs any more.
        """
        asyncio_task = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self.ended.wait())
        try:
            await asyncio.wait({asyncio_task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not asyncio_task.done():
                raise LeaseLost("The lease ended before the work was done.")
            return asyncio_task.result()
        finally:
            ended.cancel()
            await _finish(asyncio_task)

    async def stop(self) -> None:
        """End what runs under this lease, and let nothing more start. Returns when it is gone."""
        self._stopped = True
        running = list(self._running)
        for asyncio_task in running:
            asyncio_task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _finish(asyncio_task: asyncio.Task[Any]) -> None:
    """Cancel and wait until the work has cleaned up after itself."""
    asyncio_task.cancel()
    await asyncio.gather(asyncio_task, return_exceptions=True)


class Leases:
    """All leases of this process."""

    def __init__(self) -> None:
        self._held: dict[str, Lease] = {}

    def take(self, key: LeaseKey) -> Lease:
        """Begin a lease. An older one of the same job is no longer held from now on."""
        lease = Lease(key)
        self._held[key.job_id] = lease
        return lease

    def drop(self, lease: Lease) -> None:
        """End a lease."""
        if self._held.get(lease.key.job_id) is lease:
            del self._held[lease.key.job_id]
        lease.ended.set()

    async def end_all(self) -> None:
        """Stop everything and give every lease up, for another machine to take over."""
        # All at the same time: one that resists must not keep the others running.
        await asyncio.gather(*map(self._give_up, list(self._held.values())))

    async def _give_up(self, lease: Lease) -> None:
        await lease.stop()
        self.drop(lease)

    def of(self, job_id: str) -> Lease | None:
        """Return the lease that this process holds for the job, whatever its number."""
        return self._held.get(job_id)

    def find(self, key: LeaseKey) -> Lease | None:
        """Return the lease if this process holds it."""
        lease = self.of(key.job_id)
        return lease if lease is not None and lease.key == key else None

    def require(self, key: LeaseKey) -> Lease:
        """Return the lease.

        Raises:
            LeaseLost: this process does not hold it.
        """
        lease = self.find(key)
        if lease is None:
            raise LeaseLost(f"This machine does not hold lease {key.number} of job {key.job_id}.")
        return lease

    @property
    def job_ids(self) -> set[str]:
        """The jobs that hold a lease now."""
        return set(self._held)
