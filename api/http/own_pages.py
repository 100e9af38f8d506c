"""Refuses what pages of other sites make a user's browser send.

A browser that runs on this machine, or in its network, reaches this server for every page it shows.
Such a page can send requests at once, with the credentials that the browser keeps (cross-site
request forgery), and can read the answers once its name leads to this server's address (DNS
rebinding). The browser names the page's host in both cases.
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
"""Values of `Sec-Fetch-Site` for pages of this server, and for an address that the user typed."""

_ORIGIN = re.compile(r"(https?)://(.+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class OwnHosts:
    """The hosts by which this server may be addressed, besides loopback ones.

    `bind_address` is where it listens; for 0.0.0.0 and :: each request may name the IP address it
    arrived at. A page cannot make use of that: only names can be rebound. `listed` are API_HOSTS.
    """

    bind_address: str = "127.0.0.1"
    listed: tuple[HttpHost, ...] = ()

    def include(self, host: HttpHost, arrived_at: str) -> bool:
        """Return whether a request with this `Host` is for this server.

        Args:
            host: as the request has it.
            arrived_at: the address at which the connection was accepted.
        """
        own = arrived_at if self._is_everywhere else self.bind_address
        return (
            host.is_loopback
            or host.name == _plain(own)
            or any(_is_listed(host, listed) for listed in self.listed)
        )

    def include_origin(self, origin: str, host: HttpHost) -> bool:
        """Return whether an `Origin` is this server, addressed as `host` in the same request."""
        found = _ORIGIN.fullmatch(origin)
        page = parse_http_host(found[2]) if found else None
        if found is None or page is None:
            return False
        default = _DEFAULT_PORTS[found[1]]
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
    """Refuses a `Host` that is not this server's, and writing requests of other sites' pages.

    Clients that are no browsers send neither `Origin` nor `Sec-Fetch-Site` and are let through.
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
        named = headers.getlist("host")
        host = parse_http_host(named[0]) if len(named) == 1 else None
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


_NO_HOST = "Send one Host header: a host name or an IP address, with or without a port."
_REMEDY = (
    "Address it as localhost, or list this host in its setting API_HOSTS if clients or a reverse "
    "proxy use it."
)
_FOREIGN_PAGE = (
    "A browser sent this for a page of another site. Only pages of this server may do so. If the "
    "page is this server's, behind a reverse proxy, list the page's host in API_HOSTS."
)
