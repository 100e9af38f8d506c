"""Delete old salvage, idempotency keys and host rows."""

from __future__ import annotations

from datetime import timedelta

from domain.jobs import RetryFrom
from domain.timestamps import utc_now
from store.protocol import Store
from store.unfinished_jobs import unfinished_jobs
from workspace.lifecycle.expiry import Expiry

KEYS_KEPT = timedelta(days=7)
"""Clients retry a request within minutes; a week includes an outage over a long weekend."""

HOSTS_KEPT = timedelta(days=1)
"""A host that returns reports again, so its old row has no use."""


class Retention:
    """Deletes expired data on this host and in the store.

    Args:
        store: has salvage, idempotency keys and host rows.
        expiry: deletes salvage on this host's disk.
        keep_work: how long salvage is kept.
    """

    def __init__(self, store: Store, expiry: Expiry, keep_work: timedelta) -> None:
        self._store = store
        self._expiry = expiry
        self._keep_work = keep_work

    async def expire(self) -> None:
        """Delete everything that has expired. Idempotent.

        Salvage is kept while an unfinished job is going to publish it.
        """
        now = utc_now()
        needed = await self._needed_work()
        await self._expiry.expire(now - self._keep_work, needed)
        await self._store.forget_work(now - self._keep_work, needed)
        await self._store.forget_keys(now - KEYS_KEPT)
        await self._store.forget_hosts(now - HOSTS_KEPT)

    async def _needed_work(self) -> set[str]:
        """Return the ids of jobs whose salvage an unfinished job is going to publish."""
        return {
            job.retry_of
            async for job in unfinished_jobs(self._store)
            if job.retry_of is not None and job.retry_from is RetryFrom.PUBLISH
        }
