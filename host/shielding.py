"""Finishing what must not be left half done when an activity is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; a cancellation takes effect when it has ended."""
    asyncio_task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(asyncio_task)
    except asyncio.CancelledError:
        await asyncio.gather(asyncio.shield(asyncio_task), return_exceptions=True)
        raise
