"""Serves the proxy of one job on the sockets that the job's programs connect to."""

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
    """A listening socket of the sandbox whose connections all lead to one service outside."""

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
    word: str,
    forwards: Sequence[Forward] = (),
    resolve: Resolve | None = None,
) -> AsyncIterator[None]:
    """Serve one job's proxy for as long as the block runs; then close all its connections.

    Args:
        listeners: listening TCP sockets, of whatever network namespace. They are closed at the
            end, as those of `forwards` are.
        job_id: for the log.
        policy: what the job may reach.
        connection: the operator's proxies and certificates.
        model: answers for Claude's API; None when the job does not reach it through the proxy.
        word: the random word that the job has in place of Claude's credential.
        forwards: services that the operator has opened to the job; no policy applies to them.
        resolve: how names get their addresses; by default from the host's name service.
    """
    resolver = Resolver()
    job = _Job(job_id, policy, connection, model, word, resolve or resolver)
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
    """Answers the connections of one job."""

    def __init__(
        self,
        job_id: str,
        policy: Policy,
        connection: ConnectionVariables,
        model: ModelUpstream | None,
        word: str,
        resolve: Resolve,
    ) -> None:
        self.outside = Outside(policy, connection, resolve)
        self._job_id = job_id
        self._model = model
        self._word = word
        self._resolve = resolve
        self._logged: set[str] = set()

    async def converse(self, accepted: socket.socket) -> None:
        """Answer the requests of one connection, and close it."""
        inside = Inside(accepted)
        broken = True
        try:
            while await self._answer_next(inside):
                pass
            broken = False
        except (Gone, *_UPSTREAM_ERRORS):
            pass  # A response broke off, or its reader left; the reset tells.
        finally:
            inside.close(broken=broken)

    async def forward(self, forward: Forward, accepted: socket.socket) -> None:
        """Relay one connection to the service of a forward."""
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
        """Answer one request; return whether there can be another."""
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
        """Pass a request on, and its response back."""
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
        """Return the response of the model or of another server, its body still to come."""
        if request.target.startswith(b"/"):
            if self._model is None:
                raise Refused(403, "Claude's API is not reached through the sandbox's proxy.")
            server = self._model.name
            pending = self._model.answer(request, self._word, body)
        else:
            server, port, target = _split(request)
            pending = self.outside.fetch(request, server, port, target, body)
        try:
            response = await pending
        except httpcore.TimeoutException as error:
            raise Refused(504, f"{server} does not answer in time.", server) from error
        except httpcore.LocalProtocolError as error:
            # Its text may have a header in it.
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
        Refused: it has another form, or a method that shows the operator's proxy's password.
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
