"""Every error as `{"error": "..."}`: the one table of statuses, and the handlers that use it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
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


def json_error(
    status: int, sentence: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error response."""
    return JSONResponse({"error": sentence}, status, headers)


def handle_errors(app: FastAPI) -> None:
    """Make every error of the application a JSON body."""
    app.add_exception_handler(OrchestratorError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _crash)


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, OrchestratorError)
    status = next((code for kind, code in STATUSES if isinstance(error, kind)), 500)
    if status >= 500:
        log.error("%s %s: %s", request.method, _path(request), error, exc_info=error.__cause__)
    return json_error(status, error.message)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return json_error(400, " ".join(_sentence(problem) for problem in error.errors()[:5]))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OrchestratorError):
        return await _known(request, error.__cause__)
    headers = error.headers
    match error.status_code:
        case 404:
            sentence = f"There is no route {request.method} {_path(request)}. See /docs."
        case 405:
            sentence = f"{request.method} is not possible on {_path(request)}. See /docs."
            headers = {"Allow": ", ".join(_allowed(request))}
        case 400:
            sentence = f"The request body could not be read: {error.detail}."
        case _:
            sentence = str(error.detail)
    return json_error(error.status_code, sentence, headers)


async def _crash(request: Request, error: Exception) -> Response:
    log.error("%s %s crashed", request.method, _path(request), exc_info=error)
    return json_error(500, "The server failed unexpectedly. Its log has the details.")


def _path(request: Request) -> str:
    """Return the path, fit for a line of text. `request.url` fails on some malformed requests."""
    return quote(request.scope["path"][:SHOWN_PATH_CHARACTERS], safe="/:@")


def _allowed(request: Request) -> list[str]:
    """Return every method of the path; the framework names only those of its first route."""
    asked = {name: request.scope[name] for name in ("type", "path", "root_path")}
    return [
        method
        for method in METHODS
        if any(
            route.matches({**asked, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _sentence(problem: Mapping[str, object]) -> str:
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
