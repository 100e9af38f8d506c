"""The state of Claude's credential: whether a usage limit holds it, and whether it is refused.

A usage limit applies to the credential, not to a job. The first job that reaches the limit holds
the credential on all hosts that use it, so that no other job starts in vain.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.timestamps import utc_now
from domain.usage_limits import is_plausible
from store.protocol import Store

REFRESH_INTERVAL = timedelta(seconds=1)
"""Waiting jobs ask twenty times a second, which must not become as many reads of the store."""


class Credential:
    """The credential of this process.

    Args:
        store: shares holds between hosts.
        fingerprint: identifies the credential without revealing it.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._held_until: datetime | None = None
        self._refreshed_at = float("-inf")
        self._is_refused = False

    @property
    def is_refused(self) -> bool:
        """Whether the API refused the credential in the last turn that used it."""
        return self._is_refused

    def record_outcome(self, failure: JobFailure | None) -> None:
        """Record the outcome of a turn. Idempotent."""
        if failure is None:
            self._is_refused = False
        elif failure.code is FailureCode.CLAUDE_AUTHENTICATION:
            self._is_refused = True

    async def is_held(self) -> bool:
        """Return whether a usage limit holds the credential, as of at most 1 s ago."""
        if time.monotonic() - self._refreshed_at > REFRESH_INTERVAL.total_seconds():
            self._held_until = await self._store.credential_held_until(self._fingerprint)
            self._refreshed_at = time.monotonic()
        return self.is_known_held

    @property
    def is_known_held(self) -> bool:
        """The result of the last `is_held`, without those limits that have ended since."""
        return self._held_until is not None and self._held_until > utc_now()

    async def hold(self, until: datetime) -> None:
        """Hold the credential until a time; an implausibly late time is ignored. Idempotent."""
        if is_plausible(until, utc_now()):
            await self._store.hold_credential(self._fingerprint, until)
            self._refreshed_at = float("-inf")
