"""Requests to Claude's API: forwarded requests, their headers, and refusals."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from sandbox.proxy.model import ModelUpstream, parse_custom_headers
from tests.integration.sandbox.proxy.clients import (
    Api,
    client,
    model_proxy,
    post,
    raw_model,
)
from tests.integration.sandbox.proxy.harness import (
    KEY,
    NO_VARIABLES,
    PLACEHOLDER,
    Recorder,
    connected,
    exchange,
    proxy,
)

MODEL_PATHS = ["/v1/messages", "/v1/messages/count_tokens"]


@pytest.mark.parametrize("path", MODEL_PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_request_arrives_with_the_real_key(api: Api, api_url: str, path: str, method: str):
    async with model_proxy(f"{api_url}/gateway/") as port, client(port) as job:
        answer = await job.request(method, f"{path}?beta=true&x=%2e%2e")
        assert answer.status_code == 200
        assert answer.headers["request-id"] == "req_1"
    scope, _ = api.requests[0]
    assert scope["method"] == method
    assert scope["raw_path"] == f"/gateway{path}".encode()
    assert scope["query_string"] == b"beta=true&x=%2e%2e"
    assert dict(api.headers)["host"] == api_url.removeprefix("http://")
    assert [value for name, value in api.headers if name == "x-api-key"] == [KEY]
    assert PLACEHOLDER not in str(api.headers)


@pytest.mark.parametrize(
    ("variables", "headers"),
    [
        ({"ANTHROPIC_API_KEY": "k"}, {"x-api-key": "k"}),
        ({"CLAUDE_CODE_OAUTH_TOKEN": "t"}, {"authorization": "Bearer t"}),
        ({"ANTHROPIC_AUTH_TOKEN": "t"}, {"authorization": "Bearer t"}),
        ({"ANTHROPIC_API_KEY": "k", "CLAUDE_CODE_OAUTH_TOKEN": "t"}, {"x-api-key": "k"}),
        (
            {"ANTHROPIC_AUTH_TOKEN": "a", "CLAUDE_CODE_OAUTH_TOKEN": "t"},
            {"authorization": "Bearer a"},
        ),
        (
            {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_AUTH_TOKEN": "t"},
            {"x-api-key": "k", "authorization": "Bearer t"},
        ),
        (
            {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_CUSTOM_HEADERS": "X-Api-Key: c"},
            {"x-api-key": "c"},
        ),
    ],
)
@pytest.mark.parametrize(
    "given", [f"x-api-key: {PLACEHOLDER}", f"Authorization: bearer {PLACEHOLDER}"]
)
async def test_each_credential_has_its_header(
    api: Api, api_url: str, variables: dict[str, str], headers: dict[str, str], given: str
):
    variables = {"ANTHROPIC_BASE_URL": api_url, **variables}
    model = ModelUpstream.from_variables(variables, NO_VARIABLES)
    assert model is not None
    async with proxy(model=model) as port:
        name, _, value = given.partition(": ")
        async with httpx.AsyncClient(headers={name: value}, trust_env=False, verify=False) as job:
            await job.post(f"http://127.0.0.1:{port}/v1/messages", json={})
    await model.aclose()
    sent = [each for each in api.headers if each[0] in ("authorization", "x-api-key")]
    assert sorted(sent) == sorted(headers.items())


def test_there_is_no_upstream_without_a_credential():
    assert ModelUpstream.from_variables({}, NO_VARIABLES) is None


async def test_without_an_upstream_the_model_is_refused():
    async with proxy() as port, client(port) as job:
        answer = await job.post("/v1/messages", json={})
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"


async def test_the_operators_headers_replace_those_of_the_job(api: Api, api_url: str):
    custom = "X-Tenant: acme\nx-gateway-key: g-1\n\n"
    async with model_proxy(api_url, custom) as port:
        async with client(port) as job:
            headers = {"x-tenant": "other", "anthropic-beta": "a,b"}
            await job.post("/v1/messages", json={}, headers=headers)
    sent = dict(api.headers)
    assert [value for name, value in api.headers if name == "x-tenant"] == ["acme"]
    assert sent["x-gateway-key"] == "g-1"
    assert sent["anthropic-beta"] == "a,b"


@pytest.mark.parametrize(
    "name",
    [
        "Proxy-Authorization", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
        "X-Original-URL", "X-Rewrite-URL", "Upgrade", "TE", "Keep-Alive",
    ],
)  # fmt: skip
async def test_headers_that_could_redirect_a_gateway_are_removed(api: Api, api_url: str, name: str):
    async with model_proxy(api_url) as port, client(port) as job:
        await job.post("/v1/messages", json={}, headers={name: "DELETE"})
    assert name.lower() not in dict(api.headers)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1", "/v1/", "/v1/messages/", "//v1/messages", "/v1//messages",
        "/v1/messages/batches", "/v1/messages/../models", "/v1/messages/..", "/./v1/messages",
        "/v1/messages%2f..", "/v1/messages%3F", "/v1/%6dessages", "/v1/messages;a=b",
        "/v1/messages#", "/V1/messages", "/v1/messages/count_tokens/",
        "/v1/messages/count_tokens/../batches", "/v1/models",
        "/v1/files", "/v1/complete", "/v1/organizations/api_keys", "/api/hello", "\\v1\\messages",
        "/v1/messages\\..\\models",
    ],
)  # fmt: skip
async def test_no_other_path_reaches_the_server(path: str):
    recorder = Recorder()
    async with raw_model(recorder) as port:
        answer = await exchange(port, post(path, "Content-Length: 0", "Connection: close", body=""))
    status = answer.split(" ")[1]
    assert status == ("400" if path.startswith("\\") else "403")
    assert not recorder.received
    if status == "403":
        content = json.loads(answer.partition("\r\n\r\n")[2])
        assert content["type"] == "error"
        assert content["error"] == {
            "type": "permission_error",
            "message": "The sandbox reaches /v1/messages of Claude's API, and no more.",
        }


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
async def test_no_other_method_reaches_the_server(api: Api, api_url: str, method: str):
    async with model_proxy(api_url) as port, client(port) as job:
        assert (await job.request(method, "/v1/messages")).status_code == 403
    assert not api.requests


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"x-api-key": PLACEHOLDER.upper()},
        {"x-api-key": f"{PLACEHOLDER}x"},
        {"x-api-key": PLACEHOLDER[:-1]},
        {"x-api-key": KEY},
        {"authorization": PLACEHOLDER},
        {"authorization": f"Digest {PLACEHOLDER}"},
        {"authorization": "Bearer"},
        {"cookie": f"x-api-key={PLACEHOLDER}"},
        {"x-api-key": "ungültig"},
    ],
)
async def test_a_wrong_placeholder_is_refused(api: Api, api_url: str, headers: dict[str, str]):
    async with (
        model_proxy(api_url) as port,
        httpx.AsyncClient(trust_env=False, verify=False) as job,
    ):
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        answer = await job.post(f"http://127.0.0.1:{port}/v1/messages", json={}, headers=raw)
    assert answer.status_code == 401
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "authentication_error"
    assert not api.requests
    assert KEY not in answer.text


async def test_nothing_secret_is_logged(api: Api, api_url: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    custom = "x-gateway-key: g-secret"
    async with model_proxy(api_url, custom) as port:
        async with connected(port) as raw:
            await raw.send(post())
            await raw.head()
        await exchange(port, post("/v1/models", "Connection: close", body=""))
    for secret in (KEY, PLACEHOLDER, "g-secret"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"ANTHROPIC_BASE_URL": "ftp://x"}, "ANTHROPIC_BASE_URL is not"),
        ({"ANTHROPIC_BASE_URL": "api.anthropic.com"}, "ANTHROPIC_BASE_URL is not"),
        ({"ANTHROPIC_BASE_URL": "https://x:port"}, "ANTHROPIC_BASE_URL is not"),
        ({"ANTHROPIC_BASE_URL": "https://x/a b"}, "ANTHROPIC_BASE_URL is not"),
        ({"ANTHROPIC_BASE_URL": "https://user:secret@x"}, "has a user name"),
        ({"ANTHROPIC_BASE_URL": "https://x/?key=secret"}, "has a user name, a query"),
        ({"ANTHROPIC_API_KEY": "secret\n"}, "x-api-key"),
        ({"ANTHROPIC_API_KEY": "secret\r\nX: y"}, "x-api-key"),
        ({"ANTHROPIC_API_KEY": "sécret"}, "x-api-key"),
        ({"ANTHROPIC_CUSTOM_HEADERS": "secret"}, "ANTHROPIC_CUSTOM_HEADERS"),
        ({"ANTHROPIC_CUSTOM_HEADERS": "Host: secret"}, "'Host'"),
        ({"ANTHROPIC_CUSTOM_HEADERS": "Content-Length: 1"}, "'Content-Length'"),
        ({"ANTHROPIC_CUSTOM_HEADERS": "a b: secret"}, "'a b'"),
        ({"ANTHROPIC_CUSTOM_HEADERS": "x-empty:"}, "x-empty"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_without_its_value(
    variables: dict[str, str], sentence: str
):
    with pytest.raises(ValueError, match=sentence) as error:
        ModelUpstream.from_variables({"ANTHROPIC_API_KEY": "k", **variables}, NO_VARIABLES)
    assert "secret" not in str(error.value)


def test_custom_headers_are_one_per_line():
    assert parse_custom_headers("A: b\n\n  C :d: e \r\n") == [("A", "b"), ("C", "d: e")]
