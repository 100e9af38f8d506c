"""GET /health."""

from __future__ import annotations

from typing import Literal, Self

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from api.dependencies import Injected
from api.health_checks import Health, newest_hosts, slots
from api.http.fields import absent_if_none
from domain.hosts import Host
from domain.job_details import Queue

router = APIRouter(tags=["health"])

SANDBOX_MODES = ("off", "landlock", "on")
SANDBOX_NETWORKS = ("host", "internet", "hosts", "none")
"""Values of SANDBOX and SANDBOX_NETWORK, weakest isolation first."""


class QueueHealth(BaseModel):
    """Numbers of jobs, null when the store does not answer, and the slots of all live hosts."""

    running: int | None
    waiting: int | None
    queued: int | None
    maxConcurrent: int

    @classmethod
    def from_domain(cls, queue: Queue | None, hosts: list[Host]) -> Self:
        """Return the model of the queue on these live hosts."""
        return cls(
            running=queue.running_total if queue else None,
            waiting=queue.waiting_total if queue else None,
            queued=queue.queued_total if queue else None,
            maxConcurrent=slots(hosts),
        )


class ClaudeHealth(BaseModel):
    """Claude on a host that is logged in, or on any host if none is."""

    authenticated: bool
    version: str | None
    loginType: str | None


class GitHealth(BaseModel):
    """The GitHub login of the same host."""

    authenticated: bool
    user: str | None


class Check(BaseModel):
    """Whether a dependency answers."""

    ok: bool


class SandboxHealth(BaseModel):
    """The weakest isolation of all live hosts, field by field."""

    mode: str | None
    ok: bool
    network: str | None
    credentialHidden: bool

    @classmethod
    def from_domain(cls, hosts: list[Host]) -> Self:
        """Return the model of these hosts' newest reports."""
        return cls(
            mode=_weakest(SANDBOX_MODES, [host.sandbox for host in hosts]),
            ok=bool(hosts) and all(host.sandbox_ok for host in hosts),
            network=_weakest(SANDBOX_NETWORKS, [host.sandbox_network for host in hosts]),
            credentialHidden=bool(hosts) and all(host.credential_hidden for host in hosts),
        )


class WorkersHealth(BaseModel):
    """The number of live hosts."""

    ok: bool
    count: int


class HealthResponse(BaseModel):
    """The state of the server and its dependencies. `error` is there when `status` is `error`."""

    status: Literal["ok", "error"]
    queue: QueueHealth
    claude: ClaudeHealth
    git: GitHealth
    store: Check
    temporal: Check
    sandbox: SandboxHealth
    workers: WorkersHealth
    error: str | None = absent_if_none()

    @classmethod
    def from_domain(cls, health: Health) -> Self:
        """Return the model of a reading."""
        hosts = newest_hosts(health.hosts)
        logged_in = [host for host in hosts if host.claude_authenticated]
        host = next(iter(logged_in or hosts), None)
        return cls(
            status="error" if health.problems else "ok",
            queue=QueueHealth.from_domain(health.queue, hosts),
            claude=ClaudeHealth(
                authenticated=host.claude_authenticated if host else False,
                version=host.claude_version if host else None,
                loginType=host.claude_login_type if host else None,
            ),
            git=GitHealth(
                authenticated=host.git_authenticated if host else False,
                user=host.git_user if host else None,
            ),
            store=Check(ok=health.queue is not None),
            temporal=Check(ok=health.temporal),
            sandbox=SandboxHealth.from_domain(hosts),
            workers=WorkersHealth(ok=bool(hosts), count=len(hosts)),
            error=" ".join(health.problems) or None,
        )


@router.get("/health", responses={503: {"model": HealthResponse}})
async def health(dependencies: Injected, response: Response) -> HealthResponse:
    """Check the server and its dependencies; 503 with `error` when one of them is down."""
    reading = await dependencies.health.read()
    if reading.problems:
        response.status_code = 503
    return HealthResponse.from_domain(reading)


def _weakest(weakest_first: tuple[str, ...], reported: list[str]) -> str | None:
    return next((value for value in weakest_first if value in reported), None)
