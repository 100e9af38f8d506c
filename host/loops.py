"""Periodic work that survives errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeVar

from domain.errors import OrchestratorError

T = TypeVar("T")

log = logging.getLogger(__name__)


async def run_every(
    interval: timedelta,
    work: Callable[[], Awaitable[object]],
    *,
    name: str,
    delay: timedelta = timedelta(0),
) -> None:
    """Run `work` until cancelled, with a pause of `interval` after each run.

    An error is logged and does not end the loop.

    Args:
        interval: the pause.
        work: an operation that can be repeated.
        name: of the work, for the log.
        delay: the pause before the first run.
    """
    await asyncio.sleep(delay.total_seconds())
    while True:
        await _attempt(work(), name)
        await asyncio.sleep(interval.total_seconds())


async def for_each(
    items: Iterable[T], work: Callable[[T], Awaitable[object]], *, name: str
) -> None:
    """Run `work` for one item after another; an error is logged and affects only its item."""
    for item in items:
        await _attempt(work(item), f"{name} ({item})")


async def _attempt(work: Awaitable[object], name: str) -> None:
    try:
        await work
    except (OrchestratorError, OSError) as error:
        # Outages and full disks are expected; the message is enough.
        log.warning("%s failed and will be retried: %s", name, error)
    except Exception:
        log.exception("%s failed and will be retried", name)
