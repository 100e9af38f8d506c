"""A store that waits through outages, for work that must not fail because of one."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, cast

from domain.errors import DependencyUnavailable
from store.protocol import Store

PAUSE = timedelta(seconds=1)

log = logging.getLogger(__name__)


def patient(store: Store) -> Store:
    """Return `store` with every call repeated, once a second, while the store does not answer.

    Every write is repeatable, so that a lost answer does no harm. Cancel the call to stop waiting.
    """
    return cast(Store, _Patient(store))


class _Patient:
    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            while True:
                try:
                    return await method(*arguments, **options)
                except DependencyUnavailable as error:
                    log.warning("%s waits for the store: %s", name, error)
                    await asyncio.sleep(PAUSE.total_seconds())

        return call
