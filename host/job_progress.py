"""Record the progress of a job for the user."""

from __future__ import annotations

from domain.errors import LeaseLost
from domain.jobs import LIVE, JobStatus, Phase
from domain.messages import MessageType, NewMessage
from domain.names.ids import derived_id
from domain.timestamps import utc_now
from host.slots.leases import LeaseKey
from store.protocol import Guard, JobChanges, Store


def running_under(key: LeaseKey) -> Guard:
    """Return the guard for updates that apply only while the job runs under its lease."""
    return Guard(frozenset({JobStatus.RUNNING}), lease=key.number)


class Progress:
    """Phase changes and system messages of jobs that hold a lease."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def enter(self, key: LeaseKey, phase: Phase, **changes: object) -> None:
        """Set the phase of a running job, together with other changes to its row.

        Raises:
            LeaseLost: the job has ended or holds another lease.
        """
        await self.update(key, JobChanges(phase=phase, **changes))  # type: ignore[typeddict-item]

    async def update(self, key: LeaseKey, changes: JobChanges) -> None:
        """Change the row of a running job.

        Raises:
            LeaseLost: the job has ended or holds another lease.
        """
        if not await self._store.update_job(key.job_id, changes, running_under(key)):
            raise LeaseLost("The job has ended or continues under another lease.")

    async def cleaned_up(self, job_id: str) -> None:
        """Record that no host has files of an ended job. Idempotent."""
        ended = Guard(frozenset(JobStatus) - LIVE)
        await self._store.update_job(job_id, {"phase": None, "pid": None}, ended)

    async def notify(
        self, job_id: str, text: str, *, once: object, lease: int | None = None
    ) -> None:
        """Add a system message. Idempotent per job and value of `once`."""
        message = NewMessage(
            derived_id(job_id, "system", once), MessageType.SYSTEM, text, utc_now()
        )
        await self._store.append_messages(job_id, [message], lease)
