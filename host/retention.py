"""Forgetting what nobody has asked for in time."""

from __future__ import annotations

from datetime import timedelta

from domain.jobs import RetryFrom
from domain.timestamps import utc_now
from store.protocol import Store
from store.unfinished_jobs import unfinished_jobs
from workspace.lifecycle.expiry import Expiry

KEYS_KEPT = timedelta(days=7)
"""Clients that repeat a request do so within minutes; a week spans a long weekend of an outage."""

HOSTS_KEPT = timedelta(days=1)
"""A machine that comes back reports anew, so its old row is worth nothing."""


class Retention:
    """What this machine and the store remember, and for how long.

    Args:
        store: has undelivered work, idempotency keys and the rows of machines.
        expiry: forgets on this machine's disk.
        keep_work: how long undelivered work is kept.
    """

    def __init__(self, store: Store, expiry: Expiry, keep_work: timedelta) -> None:
        self._store = store
        self._expiry = expiry
        self._keep_work = keep_work

    async def expire(self) -> None:
        """Forget what is older than it may be. Repeatable.

        Work that a job waits to publish is kept until that job is over.
        """
        now = utc_now()
        awaited = await self._awaited_work()
        await self._expiry.expire(now - self._keep_work, awaited)
        await self._store.forget_work(now - self._keep_work, awaited)
        await self._store.forget_keys(now - KEYS_KEPT)
        await self._store.forget_hosts(now - HOSTS_KEPT)

    async def _awaited_work(self) -> set[str]:
        """Return the ids of the jobs that left the work."""
        return {
            job.retry_of
            async for job in unfinished_jobs(self._store)
            if job.retry_of is not None and job.retry_from is RetryFrom.PUBLISH
        }
