"""Check every answer in these tests against the OpenAPI document of the application."""

from __future__ import annotations

import copy
import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator

Json = dict[str, Any]
UNDOCUMENTED = ("/docs", "/openapi.json")


class Contract:
    """The OpenAPI document, read strictly: an answer has no field that it does not document."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._components = _closed(document["components"])
        # Fixed paths first: /repos/clone is not /repos/{repository_id}/clone.
        self._paths = [
            (re.compile(re.sub(r"{\w+}", "[^/]+", path)), operations)
            for path, operations in sorted(
                document["paths"].items(), key=lambda item: "{" in item[0]
            )
        ]

    def check(self, response: httpx.Response) -> None:
        """Fail unless the status, content type and body of the answer are documented."""
        request = response.request
        if request.url.path in UNDOCUMENTED and response.is_success:
            return
        operation = self._operation(request.method, request.url.path)
        if response.is_success and self._is_documented_text(operation, response):
            return
        assert response.headers["content-type"] == "application/json", response.text[:500]
        answer = response.json()
        if response.is_error:
            assert isinstance(answer["error"], str), answer
            assert answer["error"], answer
        if operation is None:
            assert response.is_error, f"{request.method} {request.url.path} is not documented"
            return
        responses = operation["responses"]
        family = f"{response.status_code // 100}XX"
        documented = responses.get(str(response.status_code), responses.get(family))
        assert documented, f"{response.status_code} is not documented: {response.text[:500]}"
        self.check_body(documented["content"]["application/json"]["schema"], answer)

    def check_body(self, schema: Json, answer: Any) -> None:
        validator = Draft202012Validator({**schema, "components": self._components})
        problems = [
            f"{list(error.path)}: {error.message}" for error in validator.iter_errors(answer)
        ]
        assert problems == []

    def _is_documented_text(self, operation: Json | None, response: httpx.Response) -> bool:
        content_type = response.headers["content-type"].partition(";")[0]
        documented = (operation or {}).get("responses", {}).get(str(response.status_code), {})
        return content_type != "application/json" and content_type in documented.get("content", {})

    def _operation(self, method: str, path: str) -> Json | None:
        for pattern, operations in self._paths:
            if pattern.fullmatch(path):
                operation: Json | None = operations.get(method.lower())
                return operation
        return None


def _closed(components: Json) -> Json:
    """Return the components with schemas that allow no other fields."""
    closed = copy.deepcopy(components)
    for schema in closed["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return closed
