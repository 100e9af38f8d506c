"""Temporal's Web UI for browsers: only for its own pages, and only under this server's names.

Temporal's server of the UI serves every page under every name, and no setting changes that;
docs/decisions/0011-browsers-use-temporal-through-a-proxy.md has the reasons.
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
"""Temporal answers in 60 s at the latest, when it is asked to wait for news of a workflow."""

_NOT_FORWARDED = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
    | {"host", "date", "x-frame-options"}
)
"""Headers of one connection (RFC 9110, section 7.6.1), and those that each server sets itself."""


def temporal_ui_app(address: str, transport: httpx.AsyncHTTPTransport, hosts: OwnHosts) -> ASGIApp:
    """Return an application that forwards requests of its own pages.

    Args:
        address: host and port of Temporal's server of the UI.
        transport: makes the connections to it; the caller closes it.
        hosts: under which the UI may be addressed.
    """
    return OwnPagesOnly(LimitBody(_Forward(httpx.URL(f"http://{address}"), transport)), hosts)


class _Forward:
    """Forwards each request. A transport, unlike a client, keeps no cookies between requests."""

    def __init__(self, url: httpx.URL, transport: httpx.AsyncHTTPTransport) -> None:
        self._url = url
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
            sentence = "Temporal's Web UI does not answer. Try again, or see the server's log."
            await json_error(502, sentence)(scope, receive, send)
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
    return [each for each in headers if each[0].lower().decode("latin-1") not in _NOT_FORWARDED]
