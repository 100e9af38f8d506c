"""A store that waits through outages, for work that an outage must not fail."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, cast

from domain.errors import DependencyUnavailable
from store.protocol import Store

PAUSE = timedelta(seconds=1)

log = logging.getLogger(__name__)


def retrying_store(store: Store) -> Store:
    """Return `store` with each call retried once a second until it is answered.

    This is the only retry layer: the adapter sends each request once. Cancel a call to stop it.
    """
    return cast(Store, RetryingStore(store))


class RetryingStore:
    """Retries every operation of a store. All of them are idempotent."""

    def __init__(self, store: Store) -> None:
        self._store = store.without_retries()

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            while True:
                try:
                    return await operation(*arguments, **options)
                except DependencyUnavailable as error:
                    log.warning("%s waits for the store: %s", name, error)
                    await asyncio.sleep(PAUSE.total_seconds())

        return call
