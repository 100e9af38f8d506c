"""Headers of proxied requests and responses."""

from __future__ import annotations

from collections.abc import Iterable

import h11

Header = tuple[bytes, bytes]

# Hop-by-hop headers (RFC 9110, 7.6.1), proxy headers, and Expect, which the proxy answers itself.
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"expect", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"upgrade",
    }
)  # fmt: skip
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"""Headers for the length of a body. Both connections have their own."""


def request_headers(request: h11.Request, host: bytes) -> list[Header]:
    """Return the headers of a request to forward, with the target's Host header."""
    framing = [(name, value) for name, value in request.headers if name in _FRAMING]
    kept = [
        (name, value)
        for name, value in _end_to_end(request.headers.raw_items())
        if name.lower() not in _FRAMING | {b"host"}
    ]
    return [(b"Host", host), *kept, *framing]


def response_headers(headers: Iterable[Header]) -> list[Header]:
    """Return the headers of a response to forward.

    A length next to `Transfer-Encoding` is invalid. Without both, the body is sent in chunks.
    """
    headers = list(headers)
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in headers)
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        if not (chunked and name.lower() in _FRAMING)
    ]


def has_body(request: h11.Request) -> bool:
    """Return whether a request announces a body, even an empty one."""
    return any(name in _FRAMING for name, _ in request.headers)


def is_ambiguous(request: h11.Request) -> bool:
    """Return whether two servers could disagree on where a request ends (request smuggling)."""
    framing = {name for name, _ in request.headers} & _FRAMING
    return framing == _FRAMING or (
        b"transfer-encoding" in framing and request.http_version < b"1.1"
    )


def _end_to_end(headers: Iterable[Header]) -> list[Header]:
    headers = list(headers)
    dropped = set(_HOP_BY_HOP)
    for name, value in headers:
        if name.lower() == b"connection":
            dropped.update(token.strip().lower() for token in value.split(b","))
    return [(name, value) for name, value in headers if name.lower() not in dropped]
