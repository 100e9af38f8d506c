"""A store that fails on demand, before or after the effect of a call."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, cast

from domain.errors import DependencyUnavailable
from store.protocol import Store


class Outages:
    """Wraps a real store.

    `is_down` makes every call fail, and calls wait while `gate` is closed. `calls` counts what was
    asked, and `done` what had its effect.
    """

    def __init__(self, store: Store) -> None:
        self.is_down = False
        self.calls: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.arguments: dict[str, list[tuple[Any, ...]]] = {}
        self._store = store
        self._faults: dict[str, deque[str]] = {}

    @property
    def store(self) -> Store:
        return cast(Store, self)

    def without_retries(self) -> Store:
        return self.store

    def fail(self, method: str, *when: str) -> None:
        """Make the next calls of a method fail, each `before` or `after` its effect."""
        self._faults.setdefault(method, deque()).extend(when)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real = getattr(self._store, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            self.arguments.setdefault(name, []).append(arguments)
            await self.gate.wait()
            faults = self._faults.get(name)
            fault = faults.popleft() if faults else None
            if self.is_down or fault == "before":
                raise DependencyUnavailable("The store does not answer.", "store")
            answer = await real(*arguments, **options)
            self.done[name] += 1
            if fault == "after":
                raise DependencyUnavailable("The store's answer was lost.", "store")
            return answer

        return call
