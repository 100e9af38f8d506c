"""Connections through the operator's own proxies and with the operator's certificates."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from domain.configuration.isolation import Network
from sandbox.proxy.connection_variables import ConnectionVariables
from sandbox.proxy.policy import Policy
from tests.integration.sandbox.proxy.certificates import Certificates
from tests.integration.sandbox.proxy.clients import (
    INTERNET,
    connect,
)
from tests.integration.sandbox.proxy.harness import (
    KEY,
    PATIENCE,
    PLACEHOLDER,
    FakeResolver,
    Recorder,
    connected,
    everywhere_at,
    exchange,
    proxy,
    server,
    upstream,
)

AUTHORIZATION = "Basic " + base64.b64encode(b"user:pa:ss@word").decode()
PRIVATE = FakeResolver({"server.example": [["10.0.0.1"]]})
UNKNOWN = FakeResolver({})
PUBLIC = FakeResolver({"server.example": [["8.8.8.8"]]})
LISTED = everywhere_at(80, 443)


def through_proxy(port: int, **more: str) -> ConnectionVariables:
    url = f"http://user:pa%3Ass%40word@127.0.0.1:{port}"
    return ConnectionVariables({"HTTPS_PROXY": url, "HTTP_PROXY": url, **more})


class OtherProxy(Recorder):
    """The operator's proxy: records the headers of a request, answers, and echoes the rest."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        super().__init__(answer)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received.append(bytearray(await reader.readuntil(b"\r\n\r\n")))
        writer.write(self.answer)
        while data := await reader.read(65536):
            writer.write(data)


@pytest.mark.parametrize("names", [UNKNOWN, PUBLIC], ids=["unknown here", "public here"])
async def test_a_tunnel_goes_through_the_operators_proxy_by_name(names: FakeResolver):
    other = OtherProxy()
    async with server(other) as at:
        async with proxy(INTERNET, connection=through_proxy(at), resolve=names) as through:
            async with connected(through) as raw:
                await raw.send(connect("server.example:443", "X-Job: 1") + b"early ")
                assert (await raw.head()).startswith("HTTP/1.1 200 ")
                await raw.send(b"late")
                raw.writer.write_eof()
                assert await raw.rest() == b"early late"
    assert other.text.startswith("CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443")
    assert f"Proxy-Authorization: {AUTHORIZATION}\r\n" in other.text
    assert "X-Job" not in other.text


async def test_a_tunnel_goes_through_a_proxy_with_tls(certificates: Certificates):
    other = OtherProxy()
    async with server(other, certificates.server_context()) as at:
        connection = ConnectionVariables(
            {
                "ALL_PROXY": f"https://localhost:{at}",
                "NODE_EXTRA_CA_CERTS": str(certificates.authority),
            }
        )
        async with proxy(INTERNET, connection=connection, resolve=UNKNOWN) as through:
            async with connected(through) as raw, asyncio.timeout(PATIENCE):
                await raw.send(connect("server.example:443"))
                assert (await raw.head()).startswith("HTTP/1.1 200 ")
                await raw.send(b"hello")
                assert await raw.reader.readexactly(5) == b"hello"
                raw.writer.write_eof()
                with pytest.raises(ConnectionResetError):
                    await raw.reader.read()


async def test_plain_http_goes_through_the_operators_proxy_by_name():
    recorder = Recorder()
    async with server(recorder) as at:
        async with proxy(INTERNET, connection=through_proxy(at), resolve=UNKNOWN) as through:
            request = (
                "GET http://server.example/a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                "Proxy-Authorization: Basic job\r\n\r\n"
            )
            answer = await exchange(through, request.encode())
    assert answer.startswith("HTTP/1.1 200 ")
    assert recorder.text.startswith("GET http://server.example:80/a?b HTTP/1.1\r\n")
    assert f"Proxy-Authorization: {AUTHORIZATION}\r\n" in recorder.text
    assert recorder.text.count("Proxy-Authorization") == 1


@pytest.mark.parametrize(
    ("host", "policy", "names", "sentence"),
    [
        ("evil.example", LISTED, UNKNOWN, "can add it to SANDBOX_HOSTS"),
        ("server.example", INTERNET, PRIVATE, "its address is private"),
        ("127.0.0.1", INTERNET, UNKNOWN, "its address is private"),
        ("169.254.169.254", INTERNET, UNKNOWN, "its address is private"),
        ("[::1]", INTERNET, UNKNOWN, "its address is private"),
        ("a.localhost", INTERNET, UNKNOWN, "its address is private"),
        ("intranet", INTERNET, UNKNOWN, "its address is private"),
        ("metadata.google.internal", INTERNET, UNKNOWN, "its address is private"),
        ("server.example", Policy(Network.NONE), UNKNOWN, "The sandbox has no network"),
    ],
)
@pytest.mark.parametrize("form", ["CONNECT {host}:443", "GET http://{host}/"])
async def test_the_policy_applies_before_the_operators_proxy(
    form: str, host: str, policy: Policy, names: FakeResolver, sentence: str
):
    other = OtherProxy()
    request = f"{form.format(host=host)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with server(other) as at:
        async with proxy(policy, connection=through_proxy(at), resolve=names) as through:
            answer = await exchange(through, request.encode())
    assert answer.startswith("HTTP/1.1 403 ")
    assert sentence in answer
    assert not other.received


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "does not connect to server.exa"),
        (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "it answers 407."),
        (b"nonsense\r\n\r\n", "The operator's proxy does not answer"),
    ],
)
async def test_a_proxy_that_refuses_a_tunnel_gives_502(answer: bytes, sentence: str):
    async with server(OtherProxy(answer)) as at:
        async with proxy(INTERNET, connection=through_proxy(at), resolve=UNKNOWN) as through:
            text = await exchange(through, connect("server.example:443", "Connection: close"))
    assert text.startswith("HTTP/1.1 502 ")
    assert sentence in text
    assert "pa:ss" not in text


async def test_an_unreachable_proxy_gives_502():
    async with server(OtherProxy()) as at:
        pass
    async with proxy(INTERNET, connection=through_proxy(at), resolve=UNKNOWN) as through:
        text = await exchange(through, connect("server.example:443", "Connection: close"))
    assert text.startswith("HTTP/1.1 502 The operator's proxy does not answer")


async def test_hosts_of_no_proxy_are_connected_to_directly():
    other = OtherProxy()
    async with server(other) as at, server(Recorder()) as port:
        connection = through_proxy(at, NO_PROXY=".example")
        async with proxy(everywhere_at(port), connection=connection) as through:
            request = f"GET http://server.example:{port}/ HTTP/1.1\r\nHost: x\r\n"
            answer = await exchange(through, f"{request}Connection: close\r\n\r\n".encode())
    assert answer.startswith("HTTP/1.1 200 ")
    assert not other.received


async def ask(port: int) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, verify=False) as job:
        headers = {"x-api-key": PLACEHOLDER}
        return await job.post(f"http://127.0.0.1:{port}/v1/messages", content="{}", headers=headers)


async def test_a_model_without_tls_is_reached_through_the_operators_proxy():
    recorder = Recorder()
    async with server(recorder) as at:
        async with upstream("http://model.example/gateway", through_proxy(at)) as model:
            async with proxy(model=model) as through:
                assert (await ask(through)).status_code == 200
    line = "POST http://model.example:80/gateway/v1/messages HTTP/1.1\r\n"
    assert recorder.text.startswith(line)
    assert f"Proxy-Authorization: {AUTHORIZATION}\r\n" in recorder.text
    assert f"x-api-key: {KEY}\r\n" in recorder.text


async def test_a_model_with_tls_is_reached_through_the_operators_proxy(certificates: Certificates):
    """Here the operator's proxy is another instance of the product's proxy."""
    recorder = Recorder()
    names = FakeResolver({"model.example": [["127.0.0.1"]]})
    async with server(recorder, certificates.server_context()) as port:
        other = everywhere_at(port, name="model.example")
        async with proxy(other, resolve=names) as at:
            connection = through_proxy(at, SSL_CERT_FILE=str(certificates.authority))
            async with upstream(f"https://model.example:{port}", connection) as model:
                async with proxy(model=model) as through:
                    assert (await ask(through)).status_code == 200
    assert recorder.text.startswith("POST /v1/messages HTTP/1.1\r\n")
    assert "Proxy-Authorization" not in recorder.text
    assert names.asked == ["model.example"]


@pytest.mark.parametrize(
    "name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"]
)
async def test_the_operators_authorities_are_trusted(certificates: Certificates, name: str):
    connection = ConnectionVariables({name: str(certificates.authority)})
    async with server(Recorder(), certificates.server_context()) as port:
        async with upstream(f"https://localhost:{port}", connection) as model:
            async with proxy(model=model) as through:
                assert (await ask(through)).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_an_unknown_authority_or_another_name_gives_502(
    certificates: Certificates, host: str
):
    known = {"NODE_EXTRA_CA_CERTS": str(certificates.authority)} if host != "localhost" else {}
    recorder = Recorder()
    async with server(recorder, certificates.server_context()) as port:
        async with upstream(f"https://{host}:{port}", ConnectionVariables(known)) as model:
            async with proxy(model=model) as through:
                answer = await ask(through)
    assert answer.status_code == 502
    assert "certificate verify failed" in answer.json()["error"]["message"]
    assert not recorder.received


async def test_the_operators_certificate_is_sent_to_the_model(certificates: Certificates):
    connection = ConnectionVariables(
        {
            "NODE_EXTRA_CA_CERTS": str(certificates.authority),
            "CLAUDE_CODE_CLIENT_CERT": str(certificates.signed),
            "CLAUDE_CODE_CLIENT_KEY": str(certificates.signed),
        }
    )
    async with server(Recorder(), certificates.server_context(asks=True)) as port:
        async with upstream(f"https://localhost:{port}", connection) as model:
            async with proxy(model=model) as through:
                assert (await ask(through)).status_code == 200
