"""Every error is `{"error": "..."}` with a helpful message."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.http.body_limit import MAX_BODY_BYTES
from domain.errors import DependencyFailed, TooLarge
from tests.unit.api.calls import BEARER, Api

NEEDS_OBJECT = (
    "A JSON object is required as the request body, with the header Content-Type: application/json."
)
NOT_JSON = "The request body is not valid JSON."
UNREADABLE = "The request body could not be read: There was an error parsing the body."
JSON_TYPE = {**BEARER, "Content-Type": "application/json"}
SOME_ID = "9b2f7a0c-5a07-4f5e-9d0e-3f6f5a0b1c2d"

WITH_BODY = ("/jobs", "/clients", f"/clients/{SOME_ID}/repository", f"/jobs/{SOME_ID}/message")

BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", NEEDS_OBJECT),
    "null": (b"null", NEEDS_OBJECT),
    "an array": (b"[]", NEEDS_OBJECT),
    "an array of objects": (b'[{"prompt": "x"}]', NEEDS_OBJECT),
    "a text": (b'"prompt"', NEEDS_OBJECT),
    "a number": (b"1", NEEDS_OBJECT),
    "a truth value": (b"true", NEEDS_OBJECT),
    "an open brace": (b"{", NOT_JSON),
    "words": (b"prompt=x", NOT_JSON),
    "a trailing comma": (b'{"prompt": "x",}', NOT_JSON),
    "two objects": (b"{} {}", NOT_JSON),
    "single quotes": (b"{'prompt': 'x'}", NOT_JSON),
    "blanks": (b"   ", NOT_JSON),
    "bytes that are no text": (b"\xff\xfe\xfa", UNREADABLE),
    "depth without end": (b"[" * 200_000, UNREADABLE),
    "an endless number": (b'{"prompt": ' + b"9" * 5000 + b"}", UNREADABLE),
}

PATHS = {
    "percent without digits": "/%",
    "percent with letters": "/%zz",
    "a NUL": "/jobs/%00",
    "a newline": "/jobs/%0A",
    "half a character": "/jobs/%C3",
    "a surrogate": "/jobs/%ED%A0%80",
    "a slash in an id": "/jobs/a%2Fb",
    "dots": "/jobs/../../etc/passwd",
    "a quote": "/jobs/'%22%3B",
    "a template": "/jobs/{job_id}",
    "an emoji": "/🚀",
    "two slashes": "//jobs",
    "a very long id": "/jobs/" + "x" * 60_000,
    "a very long route": "/" + "x" * 60_000,
    "very many parts": "/x" * 30_000,
}


@pytest.mark.parametrize(("body", "message"), BODIES.values(), ids=BODIES)
async def test_body_that_is_not_a_json_object(api: Api, body: bytes, message: str) -> None:
    for path in WITH_BODY:
        response = await api.call("POST", path, content=body, headers=JSON_TYPE)
        assert (response.status_code, response.json()) == (400, {"error": message})


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
async def test_json_without_its_content_type_is_refused(api: Api, kind: str) -> None:
    headers = {**BEARER, **({"Content-Type": kind} if kind else {})}
    response = await api.call("POST", "/clients", content=b'{"name": "A"}', headers=headers)
    assert (response.status_code, response.json()) == (400, {"error": NEEDS_OBJECT})


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"]
)
async def test_variants_of_the_json_content_type(api: Api, kind: str) -> None:
    headers = {**BEARER, "Content-Type": kind}
    response = await api.call("POST", "/clients", content=b'{"name": "A"}', headers=headers)
    assert response.status_code == 201


async def test_every_invalid_field_is_named(api: Api) -> None:
    body = {"clientId": 7, "jobType": "foo", "title": ["x"], "featureId": "f"}
    assert await api.refusal(400, "POST", "/jobs", body) == (
        "prompt is required. clientId: Input should be a valid string. "
        'jobType: must be "code" or "task". featureId: must be a UUID. '
        "title: Input should be a valid string."
    )


@pytest.mark.parametrize("path", ["/", "/nope", "/jobs/", "/clients/", "/health/", "/job", "/Jobs"])
async def test_unknown_route(api: Api, path: str) -> None:
    expected = f"There is no route GET {path}. See /docs."
    assert await api.refusal(404, "GET", path) == expected


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/jobs", "GET, POST"),
        ("PUT", "/clients", "GET, POST"),
        ("POST", "/queue", "GET"),
        ("PATCH", f"/jobs/{SOME_ID}", "GET"),
        ("POST", f"/jobs/{SOME_ID}", "GET"),
        ("GET", f"/jobs/{SOME_ID}/cancel", "POST"),
        ("GET", "/sync", "POST"),
        ("GET", "/repos/clone", "POST"),
        ("POST", "/health", "GET"),
        ("OPTIONS", "/jobs", "GET, POST"),
    ],
)
async def test_wrong_method(api: Api, method: str, path: str, allowed: str) -> None:
    response = await api.call(method, path)
    assert response.status_code == 405
    assert response.json() == {"error": f"{method} is not allowed on {path}. See /docs."}
    assert response.headers["allow"] == allowed


async def chunks(size: int) -> AsyncIterator[bytes]:
    """A body without a Content-Length."""
    yield b'{"name": "'
    for _ in range(size // 65536):
        yield b"x" * 65536
    yield b'"}'


@pytest.mark.parametrize("path", WITH_BODY)
async def test_body_over_the_limit(api: Api, path: str) -> None:
    expected = {"error": "The request body is over 8388608 bytes. Send a shorter one."}
    declared = await api.call("POST", path, content=b"x" * (MAX_BODY_BYTES + 1), headers=JSON_TYPE)
    assert (declared.status_code, declared.json()) == (413, expected)
    undeclared = await api.call("POST", path, content=chunks(MAX_BODY_BYTES), headers=JSON_TYPE)
    assert (undeclared.status_code, undeclared.json()) == (413, expected)


async def test_body_at_the_limit(api: Api) -> None:
    body = b'{"name": "A"}'.ljust(MAX_BODY_BYTES)
    assert (await api.call("POST", "/clients", content=body, headers=JSON_TYPE)).is_success


async def test_false_content_length(api: Api) -> None:
    headers = {**JSON_TYPE, "Content-Length": "5"}
    response = await api.call("POST", "/clients", content=chunks(MAX_BODY_BYTES), headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_garbage_in_paths(api: Api, path: str) -> None:
    response = await api.call("GET", path)
    assert response.status_code in {400, 404}
    assert len(response.content) < 1000


async def test_query_that_is_not_text(api: Api) -> None:
    """Servers pass on the raw query, so building the error must not fail on it."""
    response = await asgi(api, "/nope", b"x=\xff\xfe")
    assert response == (404, {"error": "There is no route GET /nope. See /docs."})
    status, _ = await asgi(api, "/jobs", b"limit=\xff")
    assert status == 400


async def test_crash_reveals_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def crash() -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(api.store, "list_clients", crash)
    response = await api.call("GET", "/clients")
    expected = {"error": "The server failed unexpectedly. Its log has the details."}
    assert (response.status_code, response.json()) == (500, expected)
    (record,) = [record for record in caplog.records if record.name == "api.http.errors"]
    assert record.getMessage() == "GET /clients crashed"
    assert record.exc_info
    assert "a secret detail" in str(record.exc_info[1])


async def test_error_without_its_own_status(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status in (
        (TooLarge("Too much."), 413),
        (DependencyFailed("It refused.", "store"), 500),
    ):

        async def fail(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(api.store, "list_clients", fail)
        assert await api.refusal(status, "GET", "/clients") == str(error)


async def test_path_in_an_error_is_quoted_and_cut(api: Api) -> None:
    message = await api.refusal(404, "GET", "/a%0AERROR%20%1B[31m" + "x" * 500)
    assert message.startswith("There is no route GET /a%0AERROR%20%1B%5B31mxxx")
    assert len(message) < 300


async def asgi(api: Api, path: str, query: bytes) -> tuple[int, Any]:
    """Send a raw ASGI request, which an HTTP client would refuse to send."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"authorization", BEARER["Authorization"].encode()), (b"host", b"localhost")],
        "client": None,
        "server": None,
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await api.app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])
