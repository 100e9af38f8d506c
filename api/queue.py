"""The queue: jobs that run, wait for their user, or wait for a slot."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.dependencies import Injected
from api.health_checks import slots
from api.http.fields import Timestamp
from domain.hosts import HOST_LIVE_FOR, Host
from domain.job_details import Queue, QueueEntry
from domain.jobs import JobType, Phase
from domain.timestamps import utc_now

router = APIRouter(tags=["queue"])


class _Entry(BaseModel):
    id: str
    title: str | None
    client_id: str
    branch_name: str
    job_type: JobType


class RunningEntry(_Entry):
    """A job that holds a slot, or that waits for its user or for the end of a usage limit."""

    phase: Phase
    started_at: Timestamp | None
    running_for: str | None

    @classmethod
    def from_domain(cls, entry: QueueEntry) -> Self:
        """Return the model of a queue entry."""
        return cls(
            id=entry.id,
            title=entry.title,
            client_id=entry.client_id,
            branch_name=entry.branch_name,
            job_type=JobType(entry.job_type),
            phase=entry.phase,
            started_at=entry.started_at,
            running_for=human_duration(entry.started_at),
        )


class QueuedEntry(_Entry):
    """A job that waits for a slot. `position` counts from 1."""

    created_at: Timestamp
    position: int

    @classmethod
    def from_domain(cls, entry: QueueEntry, position: int) -> Self:
        """Return the model of a queue entry."""
        return cls(
            id=entry.id,
            title=entry.title,
            client_id=entry.client_id,
            branch_name=entry.branch_name,
            job_type=JobType(entry.job_type),
            created_at=entry.created_at,
            position=position,
        )


class QueueTotals(BaseModel):
    """The number of all jobs of each kind, including those beyond `limit`."""

    running: int
    waiting: int
    queued: int


class QueueResponse(BaseModel):
    """The live jobs, and how many jobs the live hosts run at once."""

    running: list[RunningEntry]
    waiting: list[RunningEntry]
    queued: list[QueuedEntry]
    maxConcurrent: int
    totals: QueueTotals

    @classmethod
    def from_domain(cls, queue: Queue, hosts: list[Host]) -> Self:
        """Return the model of the queue on these live hosts."""
        return cls(
            running=[RunningEntry.from_domain(entry) for entry in queue.running],
            waiting=[RunningEntry.from_domain(entry) for entry in queue.waiting],
            queued=[
                QueuedEntry.from_domain(entry, position)
                for position, entry in enumerate(queue.queued, 1)
            ],
            maxConcurrent=slots(hosts),
            totals=QueueTotals(
                running=queue.running_total,
                waiting=queue.waiting_total,
                queued=queue.queued_total,
            ),
        )


@router.get("/queue")
async def get_queue(
    dependencies: Injected, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> QueueResponse:
    """Show the jobs that run, that wait for their user, and that are queued, in order.

    Each list has at most `limit` jobs; `totals` counts all.
    """
    queue = await dependencies.store.queue(limit)
    hosts = await dependencies.store.live_hosts(utc_now() - HOST_LIVE_FOR)
    return QueueResponse.from_domain(queue, hosts)


def human_duration(since: datetime | None) -> str | None:
    """Return the time that has passed since then, such as `59s`, `5m 3s` or `2h 5m`."""
    if since is None:
        return None
    seconds = max(0, int((utc_now() - since).total_seconds()))
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"{hours}h {minutes % 60}m"
    return f"{minutes}m {seconds % 60}s" if minutes else f"{seconds}s"
