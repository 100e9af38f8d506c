"""Network access for one process of a job: the proxy, and the forwarded services."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.model import ModelUpstream
from sandbox.proxy.policy import Policy
from sandbox.proxy.server import Forward, serving
from sandbox.supervision.supervised import Control

PORT = 3128
"""Port of the proxy inside a sandbox. No other program uses that network namespace."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The network configuration for all jobs of this host.

    Args:
        policy: the hosts and addresses that jobs may connect to.
        connection: the operator's proxies and certificates.
        model: the upstream for Claude's API; None if jobs have the credential themselves.
        forwards: host services that jobs may use, by their port on 127.0.0.1 inside.
    """

    policy: Policy
    connection: ConnectionVariables
    model: ModelUpstream | None
    forwards: Mapping[int, tuple[str, int]] = field(default_factory=dict)

    async def aclose(self) -> None:
        """Close the pooled connections. Idempotent."""
        if self.model is not None:
            await self.model.aclose()


class Passage:
    """Network access for one process.

    Args:
        gateway: the configuration of this host.
        job_id: for the log.
        is_inside: whether the sockets are created in the sandbox's own network. Otherwise the
            process uses the host's network, and only requests to the model go through the proxy.

    Attributes:
        placeholder: the random value that the process gets instead of Claude's credential.
    """

    def __init__(self, gateway: Gateway, job_id: str, *, is_inside: bool) -> None:
        self.placeholder = secrets.token_urlsafe(32)
        self.is_inside = is_inside
        self._gateway = gateway
        self._job_id = job_id
        self._outside = None if is_inside else _listening()

    @property
    def port(self) -> int:
        """The port of the proxy on 127.0.0.1, as the process sees it."""
        return PORT if self._outside is None else int(self._outside.getsockname()[1])

    @property
    def ports(self) -> list[int]:
        """The ports where sockets must listen inside the sandbox."""
        return [PORT, *self._gateway.forwards] if self.is_inside else []

    def variables(self) -> dict[str, str]:
        """Return the environment variables that make programs use the proxy."""
        address = f"http://127.0.0.1:{self.port}"
        names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
        # Inside the sandbox, the job's own services and the forwards are on the loopback interface.
        own = "127.0.0.1,localhost,::1" if self.is_inside else ""
        return {
            **dict.fromkeys(names, address),
            "NO_PROXY": own,
            "no_proxy": own,
            "NODE_USE_ENV_PROXY": "1",
        }

    @property
    def hides_credential(self) -> bool:
        """Whether the proxy adds Claude's credential to requests."""
        return self._gateway.model is not None

    async def serve(self, control: Control) -> None:
        """Serve the proxy until the supervisor of the process has ended."""
        sockets = [self._outside] if self._outside else await control.listening()
        if not sockets:
            return
        proxy, *others = sockets
        services = zip(others, self._gateway.forwards.values(), strict=False)
        async with serving(
            [proxy],
            job_id=self._job_id,
            policy=self._gateway.policy,
            connection=self._gateway.connection,
            model=self._gateway.model,
            placeholder=self.placeholder,
            forwards=[Forward(listener, *service) for listener, service in services],
        ):
            await control.gone.wait()

    def close(self) -> None:
        """Close the socket if the process was never started. Idempotent."""
        if self._outside is not None:
            self._outside.close()


def _listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener
