"""Serve the proxy of one job on the sockets that its programs connect to."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

import h11
import httpcore

from domain.names.addresses import literal, parse_authority
from sandbox.proxy.accepting import Connections
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.headers import has_body, response_headers
from sandbox.proxy.inside import Gone, Inside
from sandbox.proxy.model import ModelUpstream
from sandbox.proxy.outside import Outside, Resolve, Resolver, connect_any
from sandbox.proxy.policy import Policy, Refused
from sandbox.proxy.relay import SocketStream, relay, reset_when_closed

log = logging.getLogger(__name__)

_MAX_LOGGED_HOSTS = 1000
_UPSTREAM_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
)


@dataclass(frozen=True, slots=True)
class Forward:
    """A listening socket of the sandbox, forwarded to one service outside."""

    listener: socket.socket
    host: str
    port: int


@contextlib.asynccontextmanager
async def serving(
    listeners: Sequence[socket.socket],
    *,
    job_id: str,
    policy: Policy,
    connection: ConnectionVariables,
    model: ModelUpstream | None,
    placeholder: str,
    forwards: Sequence[Forward] = (),
    resolve: Resolve | None = None,
) -> AsyncIterator[None]:
    """Serve one job's proxy while the block runs, then close all its connections.

    Args:
        listeners: listening TCP sockets, in any network namespace. They and the sockets of
            `forwards` are closed at the end.
        job_id: for the log.
        policy: the network policy of the job.
        connection: the operator's proxies and certificates.
        model: the upstream for Claude's API; None if the job does not use the proxy for it.
        placeholder: the random value that the job has instead of Claude's credential.
        forwards: services that the operator has opened to the job; the policy does not apply.
        resolve: resolves names; by default with the host's name service.
    """
    resolver = Resolver()
    job = _Job(job_id, policy, connection, model, placeholder, resolve or resolver)
    connections = Connections()
    try:
        for listener in listeners:
            connections.listen(listener, job.converse)
        for forward in forwards:
            connections.listen(forward.listener, partial(job.forward, forward))
        yield
    finally:
        await connections.aclose()
        await job.outside.aclose()
        resolver.close()


class _Job:
    """Handle the connections of one job."""

    def __init__(
        self,
        job_id: str,
        policy: Policy,
        connection: ConnectionVariables,
        model: ModelUpstream | None,
        placeholder: str,
        resolve: Resolve,
    ) -> None:
        self.outside = Outside(policy, connection, resolve)
        self._job_id = job_id
        self._model = model
        self._placeholder = placeholder
        self._resolve = resolve
        self._logged: set[str] = set()

    async def converse(self, accepted: socket.socket) -> None:
        """Handle the requests of one connection, then close it."""
        inside = Inside(accepted)
        broken = True
        try:
            while await self._answer_next(inside):
                pass
            broken = False
        except (Gone, *_UPSTREAM_ERRORS):
            pass  # A response ended early, or its reader left. The client sees the reset.
        finally:
            inside.close(broken=broken)

    async def forward(self, forward: Forward, accepted: socket.socket) -> None:
        """Relay one connection to a forwarded service."""
        try:
            address = literal(forward.host)
            found = [address] if address else await self._resolve(forward.host)
            service = await connect_any(found, forward.port)
        except OSError as error:
            target = f"{forward.host}:{forward.port}"
            self._log(target, f"{target} cannot be reached: {error}")
            reset_when_closed(accepted)
            accepted.close()
            return
        await relay(SocketStream(accepted), service)

    async def _answer_next(self, inside: Inside) -> bool:
        """Handle one request; return whether the connection stays open."""
        target = b""
        try:
            request = await inside.next_request()
            if request is None:
                return False
            target = request.target
            if request.method == b"CONNECT":
                await self._tunnel(inside, request)
                return False
            await self._pass_on(inside, request)
        except Refused as refused:
            self._log(refused.host, refused.message)
            if not inside.can_respond:
                raise Gone from refused
            await inside.refuse(refused, in_api=target.startswith(b"/"))
        return True

    async def _tunnel(self, inside: Inside, request: h11.Request) -> None:
        try:
            host, port = parse_authority(request.target.decode())
        except ValueError as error:
            raise Refused(400, str(error)) from error
        if port is None or has_body(request):
            raise Refused(400, "CONNECT takes a host with a port, and no body.")
        outer = await self.outside.tunnel(host, port)
        try:
            inner = await inside.become_tunnel()
            await outer.write(inside.early_data)
        except BaseException:
            await outer.aclose()
            raise
        await relay(inner, outer)

    async def _pass_on(self, inside: Inside, request: h11.Request) -> None:
        """Forward a request, and return its response to the client."""
        async with contextlib.aclosing(inside.body()) as body:
            response = await self._response(request, body)
            try:
                await inside.respond(
                    response.status,
                    response.extensions.get("reason_phrase", b""),
                    response_headers(response.headers),
                    response.aiter_stream(),
                )
            finally:
                await response.aclose()

    async def _response(
        self, request: h11.Request, body: AsyncIterator[bytes]
    ) -> httpcore.Response:
        """Return the response of the model or another server; its body is not read yet."""
        if request.target.startswith(b"/"):
            if self._model is None:
                raise Refused(403, "Claude's API is not reached through the sandbox's proxy.")
            server = self._model.name
            pending = self._model.answer(request, self._placeholder, body)
        else:
            server, port, target = _split(request)
            pending = self.outside.fetch(request, server, port, target, body)
        try:
            response = await pending
        except httpcore.TimeoutException as error:
            raise Refused(504, f"{server} does not answer in time.", server) from error
        except httpcore.LocalProtocolError as error:
            # The text of the error may contain a header.
            raise Refused(502, f"The request to {server} cannot be passed on.", server) from error
        except _UPSTREAM_ERRORS as error:
            raise Refused(502, f"{server} cannot be reached: {error}.", server) from error
        if response.status == 407:
            await response.aclose()
            raise Refused(502, f"A proxy on the way to {server} asks for a password.", server)
        return response

    def _log(self, host: str, message: str) -> None:
        """Log a refusal, once for each host."""
        if host not in self._logged and len(self._logged) < _MAX_LOGGED_HOSTS:
            self._logged.add(host)
            log.info("Job %s: %s", self._job_id, message)


def _split(request: h11.Request) -> tuple[str, int, bytes]:
    """Return host, port and path of a request for `http://host/path`.

    Raises:
        Refused: another form, or a method that reveals the password of the operator's proxy.
    """
    text = request.target.decode()
    scheme, mark, rest = text.partition("://")
    authority = rest[: min((rest.find(end) for end in "/?#" if end in rest), default=len(rest))]
    path = rest[len(authority) :]
    if not mark or scheme.lower() != "http" or "#" in path:
        raise Refused(400, "The proxy takes CONNECT host:port, and http:// URLs.")
    if request.method == b"TRACE":
        raise Refused(405, "The proxy does not pass TRACE on.")
    try:
        host, port = parse_authority(authority)
    except ValueError as error:
        raise Refused(400, str(error)) from error
    return host, port or 80, (path if path.startswith("/") else f"/{path}").encode()
