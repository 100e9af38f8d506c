"""Claude's API for a job: three methods on two paths, with a placeholder as credential."""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import urlsplit

import h11
import httpcore

from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.headers import Header, has_body, request_headers
from sandbox.proxy.policy import Refused

_METHODS = frozenset({b"GET", b"HEAD", b"POST"})
_PATHS = frozenset({b"/v1/messages", b"/v1/messages/count_tokens"})
_CREDENTIAL_NAMES = frozenset({b"authorization", b"x-api-key"})
# Some gateways take another method or path from these headers.
_OVERRIDES = frozenset(
    {
        b"x-http-method", b"x-http-method-override", b"x-method-override", b"x-original-url",
        b"x-rewrite-url",
    }
)  # fmt: skip
_BEARER = b"bearer "

_URL = re.compile(r"[\x21-\x7e]+\Z")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*\Z")
_RESERVED_NAMES = frozenset({"connection", "content-length", "host", "transfer-encoding"})

# Claude decides how long it waits for an answer. When it gives up, the request is cancelled.
_TIMEOUTS = {"connect": 10.0, "write": 60.0, "read": None, "pool": None}
_KEEP_ALIVE_SECONDS = 60.0
"""How long an idle connection is kept. Calls of one turn follow within seconds."""


class ModelUpstream:
    """The server of the model, and the credential for it. Connections are pooled.

    One object serves all jobs of a worker. Close it with `aclose` when the last job has ended.

    Args:
        base_url: the value of ANTHROPIC_BASE_URL. Its path, if any, precedes that of a request.
        credentials: headers, `x-api-key` or `authorization` or both.
        extra_headers: added to every request; replace other headers of the same names.
        connection: the operator's proxies and certificates.

    Raises:
        ValueError: the URL or a header is invalid. The message has no header value.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Sequence[tuple[str, str]],
        extra_headers: Sequence[tuple[str, str]],
        connection: ConnectionVariables,
    ) -> None:
        self._scheme, self._host, self._port, self._prefix, authority = _split(base_url)
        self.name = f"{self._scheme}://{authority.decode()}"
        self._authority = authority
        headers = [_encoded(*header) for header in (*credentials, *extra_headers)]
        self._headers = {name.lower(): value for name, value in headers}
        self._dropped = _CREDENTIAL_NAMES | _OVERRIDES | self._headers.keys()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=connection.model_context,
            proxy=connection.proxy_for(self._scheme, self._host, self._port),
            max_connections=None,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
        )

    @classmethod
    def from_variables(
        cls, variables: Mapping[str, str], connection: ConnectionVariables
    ) -> ModelUpstream | None:
        """Build it from ANTHROPIC_BASE_URL, ANTHROPIC_CUSTOM_HEADERS and the credentials.

        As with Claude itself (measured), ANTHROPIC_AUTH_TOKEN and ANTHROPIC_API_KEY are both sent,
        CLAUDE_CODE_OAUTH_TOKEN only without them, and custom headers replace all of them.

        Returns:
            None without a credential.

        Raises:
            ValueError: as for the class.
        """
        credentials = []
        if token := variables.get("ANTHROPIC_AUTH_TOKEN"):
            credentials.append(("authorization", f"Bearer {token}"))
        if key := variables.get("ANTHROPIC_API_KEY"):
            credentials.append(("x-api-key", key))
        if not credentials and (token := variables.get("CLAUDE_CODE_OAUTH_TOKEN")):
            credentials.append(("authorization", f"Bearer {token}"))
        if not credentials:
            return None
        base_url = variables.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        custom = parse_custom_headers(variables.get("ANTHROPIC_CUSTOM_HEADERS", ""))
        return cls(base_url, credentials, custom, connection)

    async def answer(
        self, request: h11.Request, placeholder: str, body: AsyncIterator[bytes]
    ) -> httpcore.Response:
        """Forward a job's request with the real credential. The caller closes the response.

        Raises:
            Refused: the request is not for the model, or does not have the job's placeholder.
            httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException,
            httpcore.ProxyError: the server is unreachable, or ended the response early.
        """
        path, mark, query = request.target.partition(b"?")
        if request.method not in _METHODS or path not in _PATHS:
            raise Refused(403, "The sandbox reaches /v1/messages of Claude's API, and no more.")
        if not _has_placeholder(request, placeholder.encode()):
            raise Refused(401, "The key is not this job's. Use the one in the job's environment.")
        headers = [
            header
            for header in request_headers(request, self._authority)
            if header[0].lower() not in self._dropped
        ]
        return await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(
                    scheme=self._scheme,
                    host=self._host,
                    port=self._port,
                    target=self._prefix + path + mark + query,
                ),
                headers=[*headers, *self._headers.items()],
                content=body if has_body(request) else None,
                extensions={"timeout": _TIMEOUTS},
            )
        )

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._pool.aclose()


def parse_custom_headers(text: str) -> list[tuple[str, str]]:
    """Read ANTHROPIC_CUSTOM_HEADERS: one `Name: value` a line; empty lines are skipped.

    Raises:
        ValueError: a line has another form. The message has no value.
    """
    headers = []
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip(), value.strip()))
        elif line.strip():
            raise ValueError("A line of ANTHROPIC_CUSTOM_HEADERS is not `Name: value`.")
    return headers


def _split(base_url: str) -> tuple[str, str, int, bytes, bytes]:
    """Return scheme, host, port, the path before that of a request, and the Host header."""
    try:
        url = urlsplit(base_url)
        port = url.port
    except ValueError:
        raise ValueError("ANTHROPIC_BASE_URL is not a URL.") from None
    if url.scheme not in ("http", "https") or not url.hostname or not _URL.match(base_url):
        raise ValueError("ANTHROPIC_BASE_URL is not an http:// or https:// URL.")
    if url.username is not None or url.query or url.fragment:
        raise ValueError(
            "ANTHROPIC_BASE_URL has a user name, a query or a fragment. Leave it out, and put a "
            "credential into ANTHROPIC_CUSTOM_HEADERS."
        )
    usual = 443 if url.scheme == "https" else 80
    prefix = url.path.rstrip("/").encode()
    return url.scheme, url.hostname, port or usual, prefix, url.netloc.encode()


def _encoded(name: str, value: str) -> Header:
    if not _HEADER_NAME.match(name) or name.lower() in _RESERVED_NAMES:
        raise ValueError(f"{name[:80]!r} cannot be the name of a header for the model.")
    if not _HEADER_VALUE.match(value):
        raise ValueError(
            f"The value of the header {name} for the model is empty, or has characters that no "
            "header can have. Look for line ends and blanks in the variable."
        )
    return name.encode(), value.encode()


def _has_placeholder(request: h11.Request, placeholder: bytes) -> bool:
    presented = []
    for name, value in request.headers:
        if name == b"x-api-key":
            presented.append(value)
        elif name == b"authorization" and value.lower().startswith(_BEARER):
            presented.append(value[len(_BEARER) :])
    return any(hmac.compare_digest(each, placeholder) for each in presented)
