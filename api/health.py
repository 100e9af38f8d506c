"""GET /health."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.dependencies import Parts
from api.jobs.schemas import HealthAnswer

router = APIRouter(tags=["health"])


@router.get("/health", response_model=HealthAnswer, responses={503: {"model": HealthAnswer}})
async def health(parts: Parts) -> JSONResponse:
    """Tell whether everything works; 503 with `error`, and the part that is down, when not."""
    reading = await parts.health.read()
    return JSONResponse(reading.view(), 503 if reading.problems else 200)
