"""The way to the network of one process of a job: the proxy, and the services it may reach."""

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
"""Where the proxy listens inside a sandbox; there it is nobody else's."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """How this host's jobs reach the network.

    Args:
        policy: what they may reach.
        connection: the operator's proxies and certificates.
        model: answers for Claude's API; None when jobs have the credential themselves.
        forwards: services of the host that they may reach, by the port of 127.0.0.1 inside.
    """

    policy: Policy
    connection: ConnectionVariables
    model: ModelUpstream | None
    forwards: Mapping[int, tuple[str, int]] = field(default_factory=dict)

    async def aclose(self) -> None:
        """Close the connections that are kept for the next request. Idempotent."""
        if self.model is not None:
            await self.model.aclose()


class Passage:
    """The way to the network of one process.

    Args:
        gateway: of this host.
        job_id: for the log.
        is_inside: whether the sockets are made in the sandbox's own network. Otherwise the process
            has the host's network, and only the model is reached by the proxy.

    Attributes:
        word: what the process has in place of Claude's credential.
    """

    def __init__(self, gateway: Gateway, job_id: str, *, is_inside: bool) -> None:
        self.word = secrets.token_urlsafe(32)
        self.is_inside = is_inside
        self._gateway = gateway
        self._job_id = job_id
        self._outside = None if is_inside else _listening()

    @property
    def port(self) -> int:
        """The port of the proxy on the 127.0.0.1 of the process."""
        return PORT if self._outside is None else int(self._outside.getsockname()[1])

    @property
    def ports(self) -> list[int]:
        """The ports on which sockets must listen inside."""
        return [PORT, *self._gateway.forwards] if self.is_inside else []

    def variables(self) -> dict[str, str]:
        """Return the variables by which programs find the proxy, and services of their own."""
        address = f"http://127.0.0.1:{self.port}"
        names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
        # Inside, the job's own services and the forwards are on the loopback interface.
        own = "127.0.0.1,localhost,::1" if self.is_inside else ""
        return {
            **dict.fromkeys(names, address),
            "NO_PROXY": own,
            "no_proxy": own,
            "NODE_USE_ENV_PROXY": "1",
        }

    @property
    def hides_credential(self) -> bool:
        """Whether the proxy puts Claude's credential in place."""
        return self._gateway.model is not None

    async def serve(self, control: Control) -> None:
        """Serve the proxy until the process's supervisor is gone."""
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
            word=self.word,
            forwards=[Forward(listener, *service) for listener, service in services],
        ):
            await control.gone.wait()

    def close(self) -> None:
        """Let go of the socket, where the process was never started. Idempotent."""
        if self._outside is not None:
            self._outside.close()


def _listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener
