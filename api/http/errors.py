"""Answer every error with `{"error": "..."}` and its status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from domain.errors import (
    Conflict,
    DependencyFailed,
    DependencyUnavailable,
    InvalidRequest,
    KeyReused,
    NotFound,
    OrchestratorError,
    TooLarge,
)

STATUSES: tuple[tuple[type[OrchestratorError], int], ...] = (
    (InvalidRequest, 400),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (KeyReused, 422),
    (DependencyFailed, 500),
    (DependencyUnavailable, 503),
)

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SHOWN_PATH_CHARACTERS = 200

log = logging.getLogger(__name__)


class Error(BaseModel):
    """The body of every error."""

    error: str = Field(description="What happened and what to do.")


def json_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error response."""
    return JSONResponse({"error": message}, status, headers)


def handle_errors(app: FastAPI) -> None:
    """Make the application answer every error with a JSON body."""
    app.add_exception_handler(OrchestratorError, _orchestrator_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected_error)


async def _orchestrator_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OrchestratorError)
    status = next((code for kind, code in STATUSES if isinstance(error, kind)), 500)
    if status >= 500:
        log.error("%s %s: %s", request.method, _path(request), error, exc_info=error.__cause__)
    return json_error(status, error.message)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return json_error(400, " ".join(_problem_text(problem) for problem in error.errors()[:5]))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OrchestratorError):
        return await _orchestrator_error(request, error.__cause__)
    headers = error.headers
    match error.status_code:
        case 404:
            message = f"There is no route {request.method} {_path(request)}. See /docs."
        case 405:
            message = f"{request.method} is not allowed on {_path(request)}. See /docs."
            headers = {"Allow": ", ".join(_allowed(request))}
        case 400:
            message = f"The request body could not be read: {error.detail}."
        case _:
            message = str(error.detail)
    return json_error(error.status_code, message, headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    log.error("%s %s crashed", request.method, _path(request), exc_info=error)
    return json_error(500, "The server failed unexpectedly. Its log has the details.")


def _path(request: Request) -> str:
    """Return the path, quoted and cut for a line of text."""
    # `request.url` fails for some malformed requests.
    return quote(request.scope["path"][:SHOWN_PATH_CHARACTERS], safe="/:@")


def _allowed(request: Request) -> list[str]:
    """Return every method of the path. FastAPI names only the methods of its first route."""
    scope = {name: request.scope[name] for name in ("type", "path", "root_path")}
    return [
        method
        for method in METHODS
        if any(
            route.matches({**scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _problem_text(problem: Mapping[str, object]) -> str:
    location = problem.get("loc", ())
    assert isinstance(location, (tuple, list))
    if problem.get("type") == "json_invalid":
        return "The request body is not valid JSON."
    name = ".".join(str(part) for part in location[1:]) or "The request body"
    match problem.get("type"):
        case "missing" | "model_attributes_type" if len(location) == 1:
            return (
                "A JSON object is required as the request body, with the header "
                "Content-Type: application/json."
            )
        case "missing":
            return f"{name} is required."
        case _:
            return (
                f"{name}: {str(problem.get('msg', 'is not valid')).removeprefix('Value error, ')}."
            )
