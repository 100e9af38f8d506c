"""The hosts that a request can name, and the pages that can send it."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.http.own_pages import OwnHosts, OwnPagesOnly
from domain.names.http_hosts import HttpHost
from tests.unit.api.calls import BEARER, Api

LISTED = (HttpHost("api.example.com"), HttpHost("proxy.test", 8443), HttpHost("plain.test", 443))


async def ask(
    hosts: OwnHosts, host: str, method: str = "GET", arrived_at: str = "10.0.0.5", **headers: str
) -> int:
    """The status of a request to the address `arrived_at`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response()(scope, receive, send)

    url = f"http://{arrived_at}:3456"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(OwnPagesOnly(app, hosts))
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        response = await client.request(method, "/", headers={"Host": host, **named})
        return response.status_code


@pytest.mark.parametrize(
    ("bind_address", "host", "status"),
    [
        ("127.0.0.1", "localhost:1", 200),
        ("127.0.0.1", "127.0.0.1:3456", 200),
        ("127.0.0.1", "[::1]:3456", 200),
        ("127.0.0.1", "10.0.0.5:3456", 421),
        ("127.0.0.1", "evil.test:3456", 421),
        ("127.0.0.1", "localhost.evil.test", 421),
        ("127.0.0.1", "API.example.com", 200),
        ("127.0.0.1", "api.example.com:9", 200),
        ("127.0.0.1", "proxy.test:8443", 200),
        ("127.0.0.1", "proxy.test:9", 421),
        ("127.0.0.1", "proxy.test", 421),
        ("127.0.0.1", "plain.test", 200),
        ("192.0.2.7", "192.0.2.7:80", 200),
        ("192.0.2.7", "10.0.0.5:80", 421),
        ("2001:DB8::0:1", "[2001:db8::1]:3456", 200),
        ("Mill.local", "mill.LOCAL:3456", 200),
        # All addresses: only the address that accepted the connection.
        ("0.0.0.0", "10.0.0.5:3456", 200),
        ("0.0.0.0", "10.0.0.6:3456", 421),
        ("0.0.0.0", "0.0.0.0:3456", 421),
        ("0.0.0.0", "evil.test", 421),
        ("::", "10.0.0.5", 200),
        ("::", "evil.test", 421),
    ],
)
async def test_host_must_be_one_of_this_server(bind_address: str, host: str, status: int) -> None:
    assert await ask(OwnHosts(bind_address, LISTED), host) == status


async def test_ipv4_address_mapped_to_ipv6() -> None:
    assert await ask(OwnHosts("::"), "10.0.0.5", arrived_at="[::ffff:10.0.0.5]") == 200
    assert await ask(OwnHosts("::"), "[2001:db8::1]", arrived_at="[2001:db8::1]") == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec_fetch_site": "same-origin", "origin": "http://localhost:3456"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "anything else"}, 403),
        ({"sec_fetch_site": "same-origin", "origin": "http://evil.test"}, 403),
        ({"origin": "http://localhost:3456"}, 200),
        ({"origin": "https://localhost:3456"}, 200),
        ({"origin": "http://localhost:3457"}, 403),
        ({"origin": "http://localhost"}, 403),
        ({"origin": "http://127.0.0.1:3456"}, 403),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "http://evil.test:3456"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "file://"}, 403),
        ({"origin": "chrome-extension://localhost:3456"}, 403),
        ({"origin": "https://api.example.com"}, 200),
        ({"origin": "http://api.example.com:80"}, 200),
        ({"origin": "https://api.example.com:3456"}, 403),
        ({"origin": "https://proxy.test:8443"}, 200),
    ],
)
async def test_only_own_pages_may_write(headers: dict[str, str], status: int) -> None:
    hosts = OwnHosts(listed=LISTED)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert await ask(hosts, "localhost:3456", method, **headers) == status
    for method in ("GET", "HEAD"):
        assert await ask(hosts, "localhost:3456", method, **headers) == 200


async def test_page_on_the_default_port() -> None:
    for host in ("plain.test", "plain.test:443"):
        assert await ask(OwnHosts(listed=LISTED), host, "POST", origin="https://plain.test") == 200


async def test_health_checks_the_host_too(api: Api) -> None:
    response = await api.call("GET", "/health", headers={"Host": "evil.test"})
    assert response.status_code == 421
    assert response.json()["error"].startswith("evil.test is not a host of this server.")
    assert "API_HOSTS" in response.json()["error"]
    assert (await api.call("GET", "/health", headers={"Host": "127.0.0.1:3456"})).status_code == 503


async def test_refusal_names_the_setting(api: Api) -> None:
    headers = {**BEARER, "Origin": "http://evil.test"}
    response = await api.call("POST", "/clients", {"name": "Acme"}, headers=headers)
    assert response.status_code == 403
    assert "API_HOSTS" in response.json()["error"]
    assert (await api.get("/clients"))["clients"] == []
