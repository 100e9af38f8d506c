"""Complete an operation although its activity is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; a cancellation takes effect only after `work` has ended."""
    asyncio_task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(asyncio_task)
    except asyncio.CancelledError:
        await asyncio.gather(asyncio.shield(asyncio_task), return_exceptions=True)
        raise
