"""The OpenAPI document and its page. contract.py checks every answer against the document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.unit.api.calls import BEARER, Api
from tests.unit.api.contract import Contract, Json

ROUTES = {
    "GET /health",
    "GET /clients",
    "POST /clients",
    "GET /clients/{client_id}",
    "POST /clients/{client_id}/repository",
    "GET /jobs",
    "POST /jobs",
    "GET /jobs/{job_id}",
    "GET /jobs/{job_id}/messages",
    "GET /jobs/{job_id}/patch",
    "POST /jobs/{job_id}/cancel",
    "POST /jobs/{job_id}/retry",
    "POST /jobs/{job_id}/message",
    "POST /jobs/{job_id}/complete",
    "GET /queue",
    "POST /sync",
    "POST /repos/clone",
    "POST /repos/{repository_id}/clone",
}


@pytest.fixture(scope="session")
def document(contract: Contract) -> Json:
    return contract.document


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def values(tree: Any, key: str) -> Iterator[Any]:
    """All values of `key` at any depth."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from values(branch, key)


async def test_server_sends_the_document(api: Api, document: Json) -> None:
    response = await api.http.get("/openapi.json", headers=BEARER)
    assert response.json() == json.loads(json.dumps(document))


async def test_page_loads_only_files_of_this_server(api: Api) -> None:
    response = await api.http.get("/docs", headers=BEARER)
    assert response.headers["content-type"].startswith("text/html")
    assert "://" not in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    loaded = re.findall(r"(?:href|src)=\"(docs/[^\"]+)\"", response.text)
    assert len(loaded) == 2
    for path in loaded:
        part = await api.http.get(f"/{path}", headers=BEARER)
        assert part.status_code == 200
        assert len(part.content) > 100_000


def test_only_health_needs_no_secret(document: Json) -> None:
    open_routes = {
        name for name, operation in operations(document) if not operation.get("security")
    }
    assert open_routes == {"GET /health"}
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_every_route_is_listed(document: Json) -> None:
    assert {name for name, _ in operations(document)} == ROUTES


def test_every_route_has_a_description_and_a_tag(document: Json) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"].endswith("."), name
        assert len(operation["tags"]) == 1, name


def test_every_success_has_a_schema(document: Json) -> None:
    for name, operation in operations(document):
        (status,) = [status for status in operation["responses"] if status.startswith("2")]
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        answer = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        assert answer["type"] == "object", name
        assert answer["required"], name


def test_routes_that_create_answer_201(document: Json) -> None:
    created = {name for name, operation in operations(document) if "201" in operation["responses"]}
    assert created == {
        "POST /clients",
        "POST /clients/{client_id}/repository",
        "POST /jobs",
        "POST /jobs/{job_id}/retry",
    }


def test_errors_have_the_error_schema(document: Json) -> None:
    """FastAPI's own 422 and its schema are not used."""
    error = {"$ref": "#/components/schemas/Error"}
    for name, operation in operations(document):
        responses = operation["responses"]
        assert "422" not in responses, name
        for family in ("4XX", "5XX"):
            assert responses[family]["content"]["application/json"]["schema"] == error, name
    assert not [name for name in document["components"]["schemas"] if "Validation" in name]


def test_document_is_well_formed(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"]
    assert document["info"]["version"]
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names))
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_resolves(document: Json) -> None:
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    used = set(values(document, "$ref"))
    assert used - defined == set()
    assert len(used) > 15


def test_path_parameters_are_declared(document: Json) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            declared = {
                entry["name"]
                for entry in operation.get("parameters", [])
                if entry["in"] == "path" and entry["required"]
            }
            assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}, (
                path
            )


def test_idempotent_routes_have_the_key_header(document: Json) -> None:
    repeatable = {
        name
        for name, operation in operations(document)
        for entry in operation.get("parameters", [])
        if (entry["in"], entry["name"], entry["required"]) == ("header", "Idempotency-Key", False)
    }
    assert repeatable == {"POST /jobs", "POST /jobs/{job_id}/retry", "POST /jobs/{job_id}/message"}


def test_fields_of_a_new_job(document: Json) -> None:
    """The fields of the specification, and the options."""
    schema = document["components"]["schemas"]["NewJob"]
    assert schema["required"] == ["prompt"]
    assert set(schema["properties"]) == {
        "prompt",
        "clientId",
        "githubOrg",
        "githubRepo",
        "branchName",
        "jobType",
        "featureId",
        "repositoryId",
        "title",
        "createdByTeamMemberId",
        "model",
        "maxTurns",
        "maxBudgetUsd",
        "timeoutMinutes",
        "priority",
        "baseBranch",
        "draft",
        "labels",
        "reviewers",
    }


CANCELLED = {"id": "x", "status": "cancelled", "wasRunning": True}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {**CANCELLED, "undocumented": 1}),
        (200, {"id": "x", "status": "cancelled"}),
        (200, {**CANCELLED, "status": "failed"}),
        (200, {**CANCELLED, "wasRunning": None}),
        (201, CANCELLED),
        (400, {"error": "x", "detail": "x"}),
    ],
)
def test_contract_rejects_undocumented_answers(contract: Contract, status: int, body: Json) -> None:
    """Every other test of the API relies on this check of its answers."""
    request = httpx.Request("POST", "http://localhost/jobs/x/cancel")
    contract.check(httpx.Response(200, json=CANCELLED, request=request))
    with pytest.raises(AssertionError):
        contract.check(httpx.Response(status, json=body, request=request))
