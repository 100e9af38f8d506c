"""Whether everything the product depends on answers; asked at most once a second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from api.jobs.views import Json
from domain.errors import DependencyFailed, DependencyUnavailable
from domain.hosts import HOST_LIVE_FOR, Host
from domain.job_details import Queue
from domain.timestamps import utc_now
from store.protocol import Store
from temporal.job_commands import Dispatch

CACHED_FOR = timedelta(seconds=1)
ANSWER_WITHIN = timedelta(seconds=3)
"""A part that is slower than this is as good as down to a load balancer."""

_MODES = ("off", "landlock", "on")
_NETWORKS = ("host", "internet", "hosts", "none")
"""Values of SANDBOX and SANDBOX_NETWORK, from the one that contains least."""


@dataclass(frozen=True, slots=True)
class Health:
    """One reading. The store's part is None when it does not answer."""

    queue: Queue | None
    hosts: list[Host]
    temporal: bool

    @property
    def problems(self) -> list[str]:
        """What is wrong, each in a sentence."""
        checks = (
            (self.queue is not None, "The store does not answer."),
            (self.temporal, "Temporal does not answer."),
            (self.queue is None or bool(self.hosts), "No worker is running."),
        )
        return [sentence for fine, sentence in checks if not fine]

    def view(self) -> Json:
        """Return the body of GET /health."""
        newest = newest_hosts(self.hosts)
        reporting = [host for host in newest if host.claude_authenticated] or newest
        host = reporting[0] if reporting else None
        view: Json = {
            "status": "error" if self.problems else "ok",
            "queue": {
                "running": self.queue.running_total if self.queue else None,
                "waiting": self.queue.waiting_total if self.queue else None,
                "queued": self.queue.queued_total if self.queue else None,
                "maxConcurrent": slots(self.hosts),
            },
            "claude": {
                "authenticated": host.claude_authenticated if host else False,
                "version": host.claude_version if host else None,
                "loginType": host.claude_login_type if host else None,
            },
            "git": {
                "authenticated": host.git_authenticated if host else False,
                "user": host.git_user if host else None,
            },
            "store": {"ok": self.queue is not None},
            "temporal": {"ok": self.temporal},
            "sandbox": _sandbox(newest),
            "workers": {"ok": bool(self.hosts), "count": len(newest)},
        }
        return view | ({"error": " ".join(self.problems)} if self.problems else {})


class HealthChecks:
    """Takes readings; callers within a second share one, so the open route costs little."""

    def __init__(self, store: Store, dispatch: Dispatch) -> None:
        self._store = store
        self._dispatch = dispatch
        self._reading: asyncio.Task[Health] | None = None
        self._read_at = 0.0

    async def read(self) -> Health:
        """Return a reading at most a second old."""
        now = asyncio.get_running_loop().time()
        stale = now - self._read_at > CACHED_FOR.total_seconds()
        if self._reading is None or (stale and self._reading.done()):
            self._read_at = now
            self._reading = asyncio.create_task(self._take())
        return await asyncio.shield(self._reading)

    async def _take(self) -> Health:
        (queue, hosts), temporal = await asyncio.gather(
            self._read_store(), self._dispatch.is_reachable()
        )
        return Health(queue, hosts, temporal)

    async def _read_store(self) -> tuple[Queue | None, list[Host]]:
        try:
            async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
                hosts = await self._store.live_hosts(utc_now() - HOST_LIVE_FOR)
                return await self._store.queue(limit=0), hosts
        except (DependencyUnavailable, DependencyFailed, TimeoutError):
            return None, []


def newest_hosts(hosts: list[Host]) -> list[Host]:
    """Return one report for each machine: that of its newest process."""
    newest: dict[str, Host] = {}
    for host in hosts:
        newest.setdefault(host.id, host)
    return list(newest.values())


def _sandbox(newest: list[Host]) -> Json:
    """Return the worst that a machine has; None where none tells."""
    return {
        "mode": _worst(_MODES, [host.sandbox for host in newest]),
        "ok": bool(newest) and all(host.sandbox_ok for host in newest),
        "network": _worst(_NETWORKS, [host.sandbox_network for host in newest]),
        "credentialHidden": bool(newest) and all(host.credential_hidden for host in newest),
    }


def _worst(from_the_worst: tuple[str, ...], found: list[str]) -> str | None:
    return next((word for word in from_the_worst if word in found), None)


def slots(hosts: list[Host]) -> int:
    """Return how many jobs the live machines take at once."""
    return sum(host.slots for host in newest_hosts(hosts))
