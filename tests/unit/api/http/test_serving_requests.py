"""Raw requests to a real server: the API in uvicorn, as `orchestrator api` runs it."""

from __future__ import annotations

from api.http.body_limit import MAX_BODY_BYTES
from tests.unit.api.calls import UNAUTHORIZED
from tests.unit.api.wire import AUTHORIZED, Wire

TOO_LARGE = {"error": f"The request body is over {MAX_BODY_BYTES} bytes. Send a shorter one."}


async def test_correct_secret_is_accepted(wire: Wire) -> None:
    answer = await wire.ask(b"GET /clients")
    assert (answer.status, answer.body) == (200, {"clients": []})
    assert "server" not in answer.headers


async def test_wrong_secret_is_refused(wire: Wire) -> None:
    for headers in (
        b"",
        b"Authorization:\r\n",
        b"Authorization: Bearer\r\n",
        b"Authorization: Bearer \xff\xfe\x80\r\n",
        AUTHORIZED * 2,
        b"X-Original-URL: /health\r\nX-Forwarded-Prefix: /health\r\n",
    ):
        answer = await wire.ask(b"GET /clients", headers)
        assert (answer.status, answer.body) == (401, UNAUTHORIZED), headers


async def test_variants_of_the_health_path_need_the_secret(wire: Wire) -> None:
    for target in (b"/health/../jobs", b"//health", b"/health%2F", b"/jobs?/health"):
        answer = await wire.ask(b"GET " + target, b"")
        assert (answer.status, answer.body) == (401, UNAUTHORIZED), target


async def test_connection_survives_a_refused_body(wire: Wire) -> None:
    body = b"x" * 200_000
    length = b"Content-Length: %d\r\n" % len(body)
    refused = await wire.ask(b"POST /jobs", length, body)
    assert (refused.status, refused.body) == (401, UNAUTHORIZED)
    assert (await wire.ask(b"GET /clients")).status == 200


async def test_declared_length_over_the_limit_is_refused(wire: Wire) -> None:
    """The answer comes before the body."""
    answer = await wire.ask(b"POST /jobs", AUTHORIZED + b"Content-Length: 1000000000\r\n")
    assert (answer.status, answer.body) == (413, TOO_LARGE)


async def test_chunked_body_over_the_limit_is_refused(wire: Wire) -> None:
    headers = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    wire.send(b"POST /clients HTTP/1.1\r\nHost: localhost\r\n" + AUTHORIZED + headers + b"\r\n")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(MAX_BODY_BYTES // 65536 + 1):
        wire.send(chunk)
    answer = await wire.answer()
    assert (answer.status, answer.body) == (413, TOO_LARGE)


async def test_unusual_request_targets(wire: Wire) -> None:
    for target, status in (
        (b"/jobs/%", 400),
        (b"/jobs/%zz", 400),
        (b"/jobs/%00", 400),
        (b"/jobs/%FF%FE", 400),
        (b"/jobs/%ED%A0%80", 400),
        (b"/jobs?limit=%FF", 400),
        (b"/jobs?status=%00", 400),
        (b"/jobs?=&&&;;%%%", 200),
        (b"/jobs/" + b"x" * 50_000, 400),
        (b"/" + b"%2e%2e/" * 5000, 404),
        (b"http://other.test/nope", 404),
        (b"*", 404),
    ):
        answer = await wire.ask(b"GET " + target)
        assert answer.status == status, target[:50]


async def test_invalid_host(wire: Wire) -> None:
    for host in (b"[", b"a:b:c", b"x:99999999", b"\xff", b"a b", b""):
        wire.send(b"GET /nope HTTP/1.1\r\nHost: " + host + b"\r\n" + AUTHORIZED + b"\r\n")
        assert (await wire.answer()).status == 400, host
    for hosts in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        wire.send(b"GET /nope HTTP/1.1\r\n" + hosts + AUTHORIZED + b"\r\n")
        answer = await wire.answer()
        assert answer.status == 400, hosts
        assert answer.body["error"].startswith("The request needs one valid Host header.")


async def test_every_answer_has_the_security_headers(wire: Wire) -> None:
    for line, headers in ((b"GET /clients", AUTHORIZED), (b"GET /clients", b""), (b"GET /", b"")):
        answer = await wire.ask(line, headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "deny"
        assert answer.headers["referrer-policy"] == "same-origin"


async def test_unknown_method(wire: Wire) -> None:
    answer = await wire.ask(b"PROPFIND /jobs")
    assert (answer.status, answer.headers["allow"]) == (405, "get, post")
    assert answer.body == {"error": "PROPFIND is not allowed on /jobs. See /docs."}
