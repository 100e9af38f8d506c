"""Extract the operations of the fake GitHub from GitHub's OpenAPI description.

Source: `generated/api.github.com.json` of the npm package @octokit/openapi. From the checkout:

    PYTHONPATH=. python tests/integration/fakes/cut_github_openapi.py <api.github.com.json>

writes `github_openapi.json` next to it, with plain JSON Schema (draft 4): without prose and
examples, and with OpenAPI's `nullable` replaced by a choice with `null`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakes.github.operations import OPERATIONS

_LICENCE = "MIT License Copyright (c) 2020 Octokit contributors"
_TARGET = Path(__file__).with_name("github_openapi.json")
# Answers that every operation may give, even if its description does not list them.
_GENERAL = {
    "400": "bad_request",
    "401": "requires_authentication",
    "403": "forbidden",
    "404": "not_found",
    "422": "validation_failed_simple",
}
_KEPT = {
    "$ref", "additionalProperties", "allOf", "anyOf", "enum", "exclusiveMaximum",
    "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maximum", "minItems",
    "minLength", "minProperties", "minimum", "not", "oneOf", "pattern", "properties", "required",
    "type", "uniqueItems",
}  # fmt: skip
_REFERENCE = "#/components/schemas/"


def cut(document: dict[str, Any]) -> dict[str, Any]:
    operations = {each.id: _operation(document, each.path, each.method) for each in OPERATIONS}
    general = {status: _json_schema(document, _shared(name)) for status, name in _GENERAL.items()}
    return {
        "source": {
            "package": "@octokit/openapi",
            "version": document["info"]["version"],
            "file": "generated/api.github.com.json",
            "licence": _LICENCE,
            "changes": "Cut and reduced by cut_github_openapi.py.",
        },
        "operations": operations,
        "general": general,
        "components": {"schemas": _reachable(document, [operations, general])},
    }


def _operation(document: dict[str, Any], path: str, method: str) -> dict[str, Any]:
    described = document["paths"][path][method.lower()]
    return {
        "id": described["operationId"],
        "method": method,
        "path": path,
        "request": _json_schema(document, described.get("requestBody", {})),
        "responses": {
            status: _json_schema(document, reply)
            for status, reply in described["responses"].items()
            if status.startswith(("2", "4"))
        },
    }


def _shared(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/responses/{name}"}


def _json_schema(document: dict[str, Any], described: dict[str, Any]) -> Any:
    """The schema of a JSON body; None when there is no body."""
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rsplit("/", 1)[1]]
    content = described.get("content", {}).get("application/json")
    return None if content is None else _plain(content["schema"])


def _plain(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    kept = {key: _plain_keyword(key, schema[key]) for key in sorted(_KEPT & schema.keys())}
    return {"anyOf": [{"type": "null"}, kept]} if schema.get("nullable") else kept


def _plain_keyword(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _plain(schema) for name, schema in sorted(value.items())}
    if key in ("allOf", "anyOf", "oneOf"):
        return [_plain(schema) for schema in value]
    if key in ("items", "not", "additionalProperties"):
        return _plain(value)
    return value


def _reachable(document: dict[str, Any], roots: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    missing = set(_references(roots))
    while missing:
        name = missing.pop()
        found[name] = _plain(document["components"]["schemas"][name])
        missing |= set(_references(found[name])) - found.keys()
    return dict(sorted(found.items()))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference.removeprefix(_REFERENCE)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)


if __name__ == "__main__":
    description = json.loads(Path(sys.argv[1]).read_text())
    _TARGET.write_text(json.dumps(cut(description), indent=1) + "\n")
