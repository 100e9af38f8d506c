"""The leases of this process: the jobs that may use this host, and the work that they run on it.

A lease is (job id, number). The activity `hold_slot` takes it and drops it at its end. Every other
activity on this host must present its lease first, and is rejected without it.
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
    """Identifies a lease; part of the input of every activity on a host."""

    job_id: str
    number: int


class Lease:
    """The right of a job to use this host while `hold_slot` runs."""

    def __init__(self, key: LeaseKey) -> None:
        self.key = key
        self.message_queue: MessageQueue | None = None
        self.ended = asyncio.Event()
        self.released = False
        self._stopped = False
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` so that `stop` can cancel it.

        Raises:
            LeaseLost: `stop` was called before or during the work.
        """
        if self._stopped:
            work.close()
            raise LeaseLost("The job was stopped.")
        asyncio_task = asyncio.ensure_future(work)
        self._running.add(asyncio_task)
        try:
            return await asyncio_task
        except (Exception, asyncio.CancelledError) as error:
            await _cancel_and_wait(asyncio_task)
            # An error during the stop is a consequence of it.
            if self._stopped:
                raise LeaseLost("The job was stopped.") from error
            raise
        finally:
            self._running.discard(asyncio_task)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` so that `stop` does not cancel it.

        Only the end of the lease cancels it, because another host may then take over.

        Raises:
            LeaseLost: the lease ended first; the work no longer runs.
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
            await _cancel_and_wait(asyncio_task)

    async def stop(self) -> None:
        """Cancel all work of this lease and reject new work. Returns when the work has ended."""
        self._stopped = True
        running = list(self._running)
        for asyncio_task in running:
            asyncio_task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _cancel_and_wait(asyncio_task: asyncio.Task[Any]) -> None:
    # The work must clean up before its lease is dropped.
    asyncio_task.cancel()
    await asyncio.gather(asyncio_task, return_exceptions=True)


class Leases:
    """All leases of this process."""

    def __init__(self) -> None:
        self._held: dict[str, Lease] = {}

    def take(self, key: LeaseKey) -> Lease:
        """Take a lease. It replaces an older lease of the same job."""
        lease = Lease(key)
        self._held[key.job_id] = lease
        return lease

    def drop(self, lease: Lease) -> None:
        """End a lease and the work that only this ends. Idempotent."""
        if self._held.get(lease.key.job_id) is lease:
            del self._held[lease.key.job_id]
        lease.ended.set()

    async def end_all(self) -> None:
        """Stop all work and drop every lease, so that another host can take over."""
        # Concurrently, so that an unresponsive job does not delay the others.
        await asyncio.gather(*map(self._give_up, list(self._held.values())))

    async def _give_up(self, lease: Lease) -> None:
        await lease.stop()
        self.drop(lease)

    def of(self, job_id: str) -> Lease | None:
        """Return the lease of a job, with any number; None if there is none."""
        return self._held.get(job_id)

    def find(self, key: LeaseKey) -> Lease | None:
        """Return the lease; None if this process does not hold it."""
        lease = self.of(key.job_id)
        return lease if lease is not None and lease.key == key else None

    def require(self, key: LeaseKey) -> Lease:
        """Return the lease that an activity presents.

        Raises:
            LeaseLost: this process does not hold it.
        """
        lease = self.find(key)
        if lease is None:
            raise LeaseLost(f"This host does not hold lease {key.number} of job {key.job_id}.")
        return lease

    @property
    def job_ids(self) -> set[str]:
        """Ids of the jobs that hold a lease."""
        return set(self._held)
