"""Claude's credential on this machine: the usage limit that holds it, and whether it is refused.

A limit is the credential's, not the job's: whoever meets it holds it for every machine that has the
same one, so that no other job starts only to meet it too.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.timestamps import utc_now
from domain.usage_limits import is_plausible
from store.protocol import Store

LOOKED_UP_EVERY = timedelta(seconds=1)
"""Jobs that wait for their turn ask twenty times a second."""


class Credential:
    """The credential of this process.

    Args:
        store: where machines tell each other.
        fingerprint: names the credential, and tells nothing of it.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._held_until: datetime | None = None
        self._looked_up_at = float("-inf")
        self._is_refused = False

    @property
    def is_refused(self) -> bool:
        """Whether the last turn that could tell was refused; False before there was one."""
        return self._is_refused

    def record_outcome(self, failure: JobFailure | None) -> None:
        """Take note of how a turn ended that used the credential. Repeatable."""
        if failure is None:
            self._is_refused = False
        elif failure.code is FailureCode.CLAUDE_AUTHENTICATION:
            self._is_refused = True

    async def is_held(self) -> bool:
        """Tell whether a usage limit lasts; what another machine has met is known in a second."""
        if time.monotonic() - self._looked_up_at > LOOKED_UP_EVERY.total_seconds():
            self._held_until = await self._store.credential_held_until(self._fingerprint)
            self._looked_up_at = time.monotonic()
        return self.is_known_held

    @property
    def is_known_held(self) -> bool:
        """Whether a usage limit lasts by what was known when `is_held` was last asked."""
        return self._held_until is not None and self._held_until > utc_now()

    async def hold(self, until: datetime) -> None:
        """Let no job start before `until`, unless no usage limit can last that long. Repeatable."""
        if is_plausible(until, utc_now()):
            await self._store.hold_credential(self._fingerprint, until)
            self._looked_up_at = float("-inf")
