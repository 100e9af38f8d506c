"""GET /queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from api.dependencies import Parts
from api.health_checks import slots
from api.jobs.schemas import QueueAnswer
from api.jobs.views import queued_view, running_view
from domain.hosts import HOST_LIVE_FOR
from domain.timestamps import utc_now

router = APIRouter(tags=["queue"])


@router.get("/queue", response_model=QueueAnswer)
async def get_queue(
    parts: Parts, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> JSONResponse:
    """Show what runs, what waits for its user, and what is queued, first come first.

    Each list is cut at `limit`; `totals` counts all.
    """
    queue = await parts.store.queue(limit)
    hosts = await parts.store.live_hosts(utc_now() - HOST_LIVE_FOR)
    return JSONResponse(
        {
            "running": [running_view(entry) for entry in queue.running],
            "waiting": [running_view(entry) for entry in queue.waiting],
            "queued": [
                queued_view(entry, position) for position, entry in enumerate(queue.queued, 1)
            ],
            "maxConcurrent": slots(hosts),
            "totals": {
                "running": queue.running_total,
                "waiting": queue.waiting_total,
                "queued": queue.queued_total,
            },
        }
    )
