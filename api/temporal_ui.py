"""A proxy in front of Temporal's Web UI, which answers only its own pages and this server's hosts.

Temporal's UI server answers requests of every page and for every host, and no setting changes that:
see docs/decisions/0011-browsers-use-temporal-through-a-proxy.md.
"""

from __future__ import annotations

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.body_limit import LimitBody
from api.http.errors import json_error
from api.http.own_pages import OwnHosts, OwnPagesOnly
from domain.errors import TooLarge

ANSWER_SECONDS = 70.0
"""Temporal answers a long poll for news of a workflow within 60 s."""

_NOT_FORWARDED = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
    | {"host", "date", "x-frame-options"}
)
"""Headers of one connection (RFC 9110, section 7.6.1), and headers that each server sets itself."""


def temporal_ui_app(address: str, transport: httpx.AsyncHTTPTransport, hosts: OwnHosts) -> ASGIApp:
    """Return an application that forwards the requests of its own pages.

    Args:
        address: host and port of Temporal's UI server.
        transport: makes the connections to it. The caller closes it.
        hosts: the hosts that a request may name.
    """
    return OwnPagesOnly(LimitBody(_Forward(httpx.URL(f"http://{address}"), transport)), hosts)


class _Forward:
    """Forwards each request."""

    def __init__(self, url: httpx.URL, transport: httpx.AsyncHTTPTransport) -> None:
        self._url = url
        # Unlike a client, a transport keeps no cookies between the requests of different users.
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            forwarded = await self._forwarded(Request(scope, receive))
            answer = await self._transport.handle_async_request(forwarded)
        except ClientDisconnect:
            return
        except TooLarge as error:
            await json_error(413, error.message)(scope, receive, send)
            return
        except httpx.TransportError:
            message = "Temporal's Web UI does not answer. Try again, or see the server's log."
            await json_error(502, message)(scope, receive, send)
            return
        try:
            response = StreamingResponse(answer.aiter_raw(), answer.status_code)
            response.raw_headers = _forwarded_headers(answer.headers.raw)
            await response(scope, receive, send)
        finally:
            await answer.aclose()

    async def _forwarded(self, request: Request) -> httpx.Request:
        path, query = request.scope["raw_path"], request.scope["query_string"]
        return httpx.Request(
            request.method,
            self._url.copy_with(raw_path=path + b"?" + query if query else path),
            headers=_forwarded_headers(request.headers.raw),
            content=await request.body(),
            extensions={"timeout": httpx.Timeout(ANSWER_SECONDS).as_dict()},
        )


def _forwarded_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [
        (name, value)
        for name, value in headers
        if name.lower().decode("latin-1") not in _NOT_FORWARDED
    ]
