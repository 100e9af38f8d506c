"""Refuse the requests that pages of other sites make a user's browser send.

A browser on this host, or in its network, can reach this server for every page it shows. Such a
page can send requests with the credentials that the browser keeps (cross-site request forgery). It
can read the answers if its name resolves to this server's address (DNS rebinding). In both cases,
the headers of the request show the host of the page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.errors import json_error
from domain.names.http_hosts import HttpHost, parse_http_host, plain_address

READING_METHODS = frozenset({"GET", "HEAD"})
OWN_SITES = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` for pages of this server, and for a URL that the user typed."""

_ORIGIN = re.compile(r"(https?)://(.+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class OwnHosts:
    """The hosts that a request to this server may name, besides loopback addresses.

    `bind_address` is the address on which the server listens. For 0.0.0.0 and ::, a request may
    name the IP address at which it arrived. That is safe, because only names can be rebound.
    `listed` are API_HOSTS.
    """

    bind_address: str = "127.0.0.1"
    listed: tuple[HttpHost, ...] = ()

    def include(self, host: HttpHost, arrived_at: str) -> bool:
        """Return whether a request with this `Host` is for this server.

        Args:
            host: the `Host` header.
            arrived_at: the address that accepted the connection.
        """
        own = arrived_at if self._is_everywhere else self.bind_address
        return (
            host.is_loopback
            or host.name == _plain(own)
            or any(_is_listed(host, listed) for listed in self.listed)
        )

    def include_origin(self, origin: str, host: HttpHost) -> bool:
        """Return whether an `Origin` is this server, addressed as `host` in the same request."""
        match = _ORIGIN.fullmatch(origin)
        page = parse_http_host(match[2]) if match else None
        if match is None or page is None:
            return False
        default = _DEFAULT_PORTS[match[1]]
        page = HttpHost(page.name, page.port or default)
        return any(page == HttpHost(own.name, own.port or default) for own in (host, *self.listed))

    @property
    def _is_everywhere(self) -> bool:
        try:
            return ip_address(self.bind_address).is_unspecified
        except ValueError:
            return False


LOOPBACK_ONLY = OwnHosts()


def _plain(name: str) -> str:
    try:
        return plain_address(name)
    except ValueError:
        return name.lower()


def _is_listed(host: HttpHost, listed: HttpHost) -> bool:
    ports = {host.port} if host.port else set(_DEFAULT_PORTS.values())
    return host.name == listed.name and (listed.port is None or listed.port in ports)


class OwnPagesOnly:
    """Refuses requests with a foreign `Host`, and writes from pages of other sites.

    Clients other than browsers send neither `Origin` nor `Sec-Fetch-Site`, and pass.
    """

    def __init__(self, app: ASGIApp, hosts: OwnHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        values = headers.getlist("host")
        host = parse_http_host(values[0]) if len(values) == 1 else None
        if host is None:
            return json_error(400, _NO_HOST)
        arrived_at = scope["server"][0] if scope["server"] else ""
        if not self._hosts.include(host, arrived_at):
            return json_error(421, f"{host.name} is not a host of this server. {_REMEDY}")
        if scope["method"] in READING_METHODS or self._is_own_page(headers, host):
            return None
        return json_error(403, _FOREIGN_PAGE)

    def _is_own_page(self, headers: Headers, host: HttpHost) -> bool:
        return OWN_SITES.issuperset(headers.getlist("sec-fetch-site")) and all(
            self._hosts.include_origin(origin, host) for origin in headers.getlist("origin")
        )


_NO_HOST = (
    "The request needs one valid Host header. Send a host name or an IP address, with or without a "
    "port."
)
_REMEDY = (
    "Use localhost, or add this host to the setting API_HOSTS if clients or a reverse proxy use it."
)
_FOREIGN_PAGE = (
    "A browser sent this request for a page of another site. Only pages of this server may send "
    "it. If this server is behind a reverse proxy, add the host of its pages to API_HOSTS."
)
