"""The proxy in front of Temporal's Web UI. tests/e2e/test_browsers.py tests it with the UI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from api.http.body_limit import MAX_BODY_BYTES
from api.http.own_pages import OwnHosts
from api.temporal_ui import temporal_ui_app
from domain.names.http_hosts import HttpHost
from fakes.ports import free_ports
from tests.unit.api.wire import connection, running_server

HOSTS = OwnHosts(listed=(HttpHost("ui.example.com"),))


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """A server in place of Temporal's, which returns its request and sets two cookies."""
    request = Request(scope, receive)
    content = {
        "method": request.method,
        "target": f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}",
        "headers": dict(request.headers),
        "body": (await request.body()).decode(),
    }
    answer = JSONResponse(content, 207, {"X-Frame-Options": "SAMEORIGIN", "X-Kept": "yes"})
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    await answer(scope, receive, send)


@asynccontextmanager
async def proxy_before(upstream: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the proxy for a server on the port `upstream`."""
    async with httpx.AsyncHTTPTransport() as transport:
        app = temporal_ui_app(f"127.0.0.1:{upstream}", transport, HOSTS)
        async with (
            running_server(app) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        ):
            yield client


@pytest.fixture
async def ui() -> AsyncIterator[httpx.AsyncClient]:
    async with running_server(mirror) as upstream, proxy_before(upstream) as client:
        yield client


async def test_request_and_answer_pass_unchanged(ui: httpx.AsyncClient) -> None:
    headers = {"X-CSRF-TOKEN": "t", "Accept-Encoding": "br", "Cookie": "c=3", "Connection": "x"}
    response = await ui.post("/api/a%2Fb//c?q=%20&r", content=b"{}", headers=headers)
    assert response.status_code == 207
    asked = response.json()
    assert (asked["method"], asked["body"]) == ("POST", "{}")
    assert asked["target"] == "/api/a%2Fb//c?q=%20&r"
    assert asked["headers"]["x-csrf-token"] == "t"
    assert asked["headers"]["accept-encoding"] == "br"
    assert asked["headers"]["cookie"] == "c=3"
    assert asked["headers"]["content-length"] == "2"
    assert "connection" not in asked["headers"]
    assert response.headers["x-kept"] == "yes"
    assert response.headers.get_list("x-frame-options") == ["DENY"]
    assert len(response.headers.get_list("date")) == 1
    assert len(response.headers.get_list("set-cookie")) == 2


async def test_upstream_gets_its_own_host(ui: httpx.AsyncClient) -> None:
    response = await ui.get("/", headers={"Host": "ui.example.com"})
    assert response.json()["headers"]["host"].startswith("127.0.0.1:")


async def test_cookies_are_not_shared_between_browsers(ui: httpx.AsyncClient) -> None:
    await ui.get("/")
    ui.cookies.clear()
    assert "cookie" not in (await ui.get("/")).json()["headers"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "evil.test"}, 421),
        ("POST", {"Host": "evil.test"}, 421),
        ("POST", {"Origin": "http://evil.test"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 207),
        ("POST", {"Host": "ui.example.com", "Origin": "https://ui.example.com"}, 207),
    ],
)
async def test_pages_of_other_sites_are_refused(
    ui: httpx.AsyncClient, method: str, headers: dict[str, str], status: int
) -> None:
    assert (await ui.request(method, "/", headers=headers)).status_code == status


async def test_body_over_the_limit_is_refused(ui: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 1):
            yield b"x" * 65536

    response = await ui.post("/", content=pieces())
    assert response.status_code == 413
    assert "over" in response.json()["error"]


async def test_unreachable_ui() -> None:
    (port,) = free_ports(1)
    async with proxy_before(port) as client:
        response = await client.get("/")
    assert response.status_code == 502
    assert response.json()["error"].startswith("Temporal's Web UI does not answer.")


async def test_disconnected_client_causes_no_error(
    ui: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert ui.base_url.port is not None
    async with connection(ui.base_url.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
    assert (await ui.get("/")).status_code == 207
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
