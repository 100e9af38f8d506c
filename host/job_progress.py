"""Telling the store, and through it the user, what a job is doing now."""

from __future__ import annotations

from domain.errors import LeaseLost
from domain.jobs import LIVE, JobStatus, Phase
from domain.messages import MessageType, NewMessage
from domain.names.ids import derived_id
from domain.timestamps import utc_now
from host.slots.leases import LeaseKey
from store.protocol import Guard, JobChanges, Store


def running_under(key: LeaseKey) -> Guard:
    """Return the guard of an update that only applies while the job runs under its lease."""
    return Guard(frozenset({JobStatus.RUNNING}), lease=key.number)


class Progress:
    """Phase changes and system messages of jobs that hold a lease."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def enter(self, key: LeaseKey, phase: Phase, **changes: object) -> None:
        """Record that a job under its lease is in `phase`, with other changes to its row.

        Raises:
            LeaseLost: the job has ended, or holds another lease by now.
        """
        await self.update(key, JobChanges(phase=phase, **changes))  # type: ignore[typeddict-item]

    async def update(self, key: LeaseKey, changes: JobChanges) -> None:
        """Change the row of a running job under its lease.

        Raises:
            LeaseLost: the job has ended, or holds another lease by now.
        """
        if not await self._store.update_job(key.job_id, changes, running_under(key)):
            raise LeaseLost("The job has ended, or goes on under another lease.")

    async def cleaned_up(self, job_id: str) -> None:
        """Record that nothing of an ended job is left on any machine. Repeatable."""
        ended = Guard(frozenset(JobStatus) - LIVE)
        await self._store.update_job(job_id, {"phase": None, "pid": None}, ended)

    async def notify(
        self, job_id: str, text: str, *, once: object, lease: int | None = None
    ) -> None:
        """Add a system message; the same `once` for the same job adds it only the first time."""
        message = NewMessage(
            derived_id(job_id, "system", once), MessageType.SYSTEM, text, utc_now()
        )
        await self._store.append_messages(job_id, [message], lease)
