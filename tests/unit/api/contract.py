"""The OpenAPI document as a judge: every answer in these tests must be as the document says."""

from __future__ import annotations

import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator

Json = dict[str, Any]
OUTSIDE = ("/docs", "/openapi.json")


class Contract:
    def __init__(self, document: Json) -> None:
        self.document = document
        # Fixed paths first: /repos/clone is not /repos/{repository_id}/clone.
        self._paths = [
            (re.compile(re.sub(r"{\w+}", "[^/]+", path)), operations)
            for path, operations in sorted(
                document["paths"].items(), key=lambda item: "{" in item[0]
            )
        ]

    def check(self, response: httpx.Response) -> None:
        """Fail unless the answer has a documented status and form; as a rule, JSON."""
        request = response.request
        if request.url.path in OUTSIDE and response.is_success:
            return
        operation = self._operation(request.method, request.url.path)
        if response.is_success and self._is_other_form(operation, response):
            return
        assert response.headers["content-type"] == "application/json", response.text[:500]
        answer = response.json()
        if response.is_error:
            assert isinstance(answer["error"], str), answer
            assert answer["error"], answer
        if operation is None:
            assert response.is_error, f"{request.method} {request.url.path} is not documented"
            return
        documented = operation["responses"]
        family = f"{response.status_code // 100}XX"
        found = documented.get(str(response.status_code), documented.get(family))
        assert found, f"{response.status_code} is not documented: {response.text[:500]}"
        self.check_form(found["content"]["application/json"]["schema"], answer)

    def check_form(self, schema: Json, answer: Any) -> None:
        validator = Draft202012Validator({**schema, "components": self.document["components"]})
        problems = [
            f"{list(error.path)}: {error.message}" for error in validator.iter_errors(answer)
        ]
        assert problems == []

    def _is_other_form(self, operation: Json | None, response: httpx.Response) -> bool:
        """Whether the answer is text of a documented kind."""
        kind = response.headers["content-type"].partition(";")[0]
        documented = (operation or {}).get("responses", {}).get(str(response.status_code), {})
        return kind != "application/json" and kind in documented.get("content", {})

    def _operation(self, method: str, path: str) -> Json | None:
        for form, operations in self._paths:
            if form.fullmatch(path):
                found: Json | None = operations.get(method.lower())
                return found
        return None
