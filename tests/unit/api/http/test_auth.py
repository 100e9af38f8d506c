"""The API secret, which every path except `/health` requires."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from api.app import create_app
from api.http.body_limit import MAX_BODY_BYTES
from api.http.documentation import BROWSER_PATHS
from tests.unit.api.calls import BEARER, SECRET, UNAUTHORIZED, Api

Headers = Mapping[str, str] | list[tuple[bytes, bytes]]


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


REFUSED: dict[str, Headers] = {
    "nothing": {},
    "empty": {"Authorization": ""},
    "only the scheme": {"Authorization": "Bearer"},
    "an empty bearer": {"Authorization": "Bearer "},
    "a blank bearer": {"Authorization": "Bearer    "},
    "the secret without a scheme": {"Authorization": SECRET},
    "a wrong secret": {"Authorization": "Bearer wrong"},
    "a beginning of the secret": {"Authorization": f"Bearer {SECRET[:-1]}"},
    "more than the secret": {"Authorization": f"Bearer {SECRET}x"},
    "the secret in other letters": {"Authorization": f"Bearer {SECRET.upper()}"},
    "a wrong scheme": {"Authorization": f"Token {SECRET}"},
    "digest": {"Authorization": f'Digest username="x", response="{SECRET}"'},
    "no space": {"Authorization": f"Bearer{SECRET}"},
    "two secrets": {"Authorization": f"Bearer {SECRET}, Bearer {SECRET}"},
    "two headers": [(b"Authorization", f"Bearer {SECRET}".encode())] * 2,
    "a right and a wrong header": [
        (b"Authorization", f"Bearer {SECRET}".encode()),
        (b"Authorization", b"Bearer wrong"),
    ],
    "bytes beyond ASCII": [(b"Authorization", b"Bearer \xff\xfe\x80")],
    "letters beyond ASCII": [(b"Authorization", "Bearer geheim-äöü".encode())],
    "another header": {"X-Api-Key": SECRET},
    "basic, wrong password": basic("any", "wrong"),
    "basic, the secret as user": basic(SECRET, ""),
    "basic, no colon": {"Authorization": "Basic " + base64.b64encode(SECRET.encode()).decode()},
    "basic, not base64": {"Authorization": "Basic %%%"},
    "basic, not text": {"Authorization": "Basic " + base64.b64encode(b"\xff:\xfe").decode()},
    "basic, base64 beyond ASCII": [(b"Authorization", b"Basic \xff\xff")],
}

BEHIND_IT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a list": ("GET", "/jobs", {}),
    "an unknown route": ("GET", "/nope", {}),
    "the root": ("GET", "/", {}),
    "a wrong method": ("DELETE", "/jobs", {}),
    "malformed JSON": ("POST", "/jobs", {"content": b"{"}),
    "a malformed id": ("GET", "/jobs/nope", {}),
    "a body that is too large": ("POST", "/jobs", {"content": b"x" * (MAX_BODY_BYTES + 1)}),
    "a length that is too large": ("POST", "/jobs", {"headers": {"Content-Length": str(10**12)}}),
    "the documentation's data": ("GET", "/openapi.json", {}),
    "health with a slash": ("GET", "/health/", {}),
    "health in capitals": ("GET", "/HEALTH", {}),
    "something under health": ("GET", "/health/x", {}),
    "two slashes before health": ("GET", "//health", {}),
    "health with a parameter": ("GET", "/health;x", {}),
}


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
async def test_wrong_secret_is_refused(api: Api, headers: Headers) -> None:
    response = await api.call("GET", "/clients", headers=headers)
    assert (response.status_code, response.json()) == (401, UNAUTHORIZED)


@pytest.mark.parametrize(("method", "path", "options"), BEHIND_IT.values(), ids=BEHIND_IT)
async def test_secret_is_checked_before_the_request(
    api: Api, method: str, path: str, options: dict[str, Any]
) -> None:
    response = await api.call(method, path, **{"headers": {}, **options})
    assert (response.status_code, response.json()) == (401, UNAUTHORIZED)
    assert response.headers["www-authenticate"] in {"Bearer", "Basic"}


async def test_body_of_a_refused_request_is_not_read(api: Api) -> None:
    taken = 0

    async def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1024

    response = await api.http.post("/jobs", content=endless())
    assert response.status_code == 401
    assert taken == 0


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"Authorization": f"bearer {SECRET}"},
        {"Authorization": f"BEARER  {SECRET} "},
        {"authorization": f"Bearer {SECRET}"},
    ],
)
async def test_correct_secret_is_accepted(api: Api, headers: dict[str, str]) -> None:
    assert (await api.call("GET", "/clients", headers=headers)).status_code == 200


async def test_password_with_a_colon(api: Api) -> None:
    app = create_app(api.store, None, "a:b:c", "https://github.test")  # type: ignore[arg-type]
    other = Api(app, api.store, api.path, api.contract)
    assert (await other.call("GET", "/docs", headers=basic("x", "a:b:c"))).status_code == 200
    assert (await other.call("GET", "/docs", headers=basic("x", "c"))).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/clients"), ("POST", "/sync"), ("GET", "/docs/"), ("GET", "/docs/other.js")],
)
async def test_basic_password_is_accepted_only_for_the_documentation(
    api: Api, method: str, path: str
) -> None:
    response = await api.call(method, path, headers=basic("anybody", SECRET))
    assert (response.status_code, response.json()) == (401, UNAUTHORIZED)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_empty_secret_is_refused(api: Api) -> None:
    app = create_app(api.store, None, "", "https://github.test")  # type: ignore[arg-type]
    other = Api(app, api.store, api.path, api.contract)
    for headers in ({}, {"Authorization": "Bearer "}, basic("", "")):
        response = await other.call("GET", "/clients", headers=headers)
        assert (response.status_code, response.json()) == (401, UNAUTHORIZED)


async def test_only_health_needs_no_secret(api: Api) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert (await api.call("GET", "/health", headers=headers)).status_code == 503
    assert (await api.call("POST", "/health", headers={})).status_code == 405


@pytest.mark.parametrize("path", sorted(BROWSER_PATHS))
async def test_documentation_asks_the_browser_for_a_password(api: Api, path: str) -> None:
    refused = await api.http.get(path)
    assert (refused.status_code, refused.json()) == (401, UNAUTHORIZED)
    assert refused.headers["www-authenticate"] == "Basic"
    for headers in (basic("anybody", SECRET), BEARER):
        status = (await api.http.get(path, headers=headers)).status_code
        assert status == (404 if path == "/favicon.ico" else 200)


async def test_no_answer_contains_the_secret(api: Api) -> None:
    for path in ("/docs", "/openapi.json", "/nope", "/health"):
        response = await api.http.get(path, headers=BEARER)
        assert SECRET not in response.text + str(response.headers)
