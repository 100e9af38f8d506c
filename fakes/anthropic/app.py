"""The HTTP side of the scripted model: the Messages API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain.errors import InvalidRequest, OrchestratorError
from fakes.anthropic.event_stream import (
    REQUEST_ID,
    content_blocks,
    error_document,
    message_document,
    message_events,
)
from fakes.anthropic.request import Conversation, read_conversation
from fakes.anthropic.responses import Dropped, EventStream, Hung, Late
from fakes.anthropic.scripts import RecordedRequest, Scripts
from fakes.anthropic.steps import Step

Story = Callable[[Conversation], Step]
UNSCRIPTED = "unscripted"
_WITHOUT_TOOLS: Step = {"text": "Scripted conversation"}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class ModelApp:
    """The endpoints for a set of scripts, with a story for conversations without a script."""

    def __init__(self, scripts: Scripts, story: Story | None) -> None:
        self._scripts = scripts
        self._story = story

    def asgi(self) -> Starlette:
        """Build the application.

        Under `/s/NAME` all sessions share one position in script NAME. At the root, a marker in the
        conversation names the script, and each session has its own position.
        """
        endpoints: list[Route] = []
        for prefix in ("/s/{name}", ""):
            endpoints += [
                Route(f"{prefix}/v1/messages", self._messages, methods=["POST"]),
                Route(f"{prefix}/v1/messages/count_tokens", self._count, methods=["POST"]),
            ]
        return Starlette(
            routes=[
                *endpoints,
                Route("/s/{name}/{rest:path}", self._unknown, methods=_METHODS),
                Route("/{rest:path}", self._unknown, methods=_METHODS),
            ]
        )

    async def _messages(self, request: Request) -> Response:
        recorded = await _record(request)
        conversation = read_conversation(recorded["body"] or {}, recorded["headers"])
        name = self._log(request, recorded, conversation)
        try:
            step = self._step(request, recorded, conversation, name)
            return _answer(step, recorded["body"] or {}, conversation)
        except OrchestratorError as error:
            return _refusal(error.message)

    def _step(
        self,
        request: Request,
        recorded: RecordedRequest,
        conversation: Conversation,
        name: str | None,
    ) -> Step:
        if not recorded["main"]:
            return _WITHOUT_TOOLS
        if name is None:
            return self._unscripted(conversation)
        session = "" if "name" in request.path_params else conversation.session
        step = self._scripts.take(name, session, conversation.agent)
        if step is None:
            raise InvalidRequest(f"script exhausted: {name} has no step for this request")
        return step

    def _unscripted(self, conversation: Conversation) -> Step:
        if self._story is None:
            raise InvalidRequest(
                "No script was chosen. Use a base URL with /s/NAME, or write [[script:NAME]] "
                "in the first user message."
            )
        return self._story(conversation)

    def _log(
        self, request: Request, recorded: RecordedRequest, conversation: Conversation
    ) -> str | None:
        name: str | None = request.path_params.get("name") or conversation.script
        self._scripts.record(name or UNSCRIPTED, recorded)
        return name

    async def _count(self, request: Request) -> Response:
        recorded = await _record(request)
        self._log(request, recorded, read_conversation(recorded["body"] or {}, {}))
        return JSONResponse({"input_tokens": len(await request.body()) // 4})

    async def _unknown(self, request: Request) -> Response:
        recorded = await _record(request)
        self._scripts.record(request.path_params.get("name", UNSCRIPTED), recorded)
        return JSONResponse(error_document(404, f"Not found: {request.url.path}"), 404)


async def _record(request: Request) -> RecordedRequest:
    body = _parsed(await request.body())
    if not isinstance(body, dict):
        body = None
    name = request.path_params.get("name")
    return RecordedRequest(
        method=request.method,
        path=request.url.path.removeprefix(f"/s/{name}") if name else request.url.path,
        query=request.url.query,
        time=time.time(),
        headers=dict(request.headers),
        body=body,
        main=bool(body and body.get("tools")),
    )


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _answer(step: Step, body: dict[str, Any], conversation: Conversation) -> Response:
    response = _prompt_answer(step, body, conversation)
    delay = step.get("delay", 0.0)
    return Late(response, delay) if delay else response


def _prompt_answer(step: Step, body: dict[str, Any], conversation: Conversation) -> Response:
    streaming = bool(body.get("stream"))
    if step.get("drop") == "hang":
        return Hung()
    if step.get("drop") == "before":
        return Dropped()
    headers = {"request-id": REQUEST_ID, **step.get("headers", {})}
    if "status" in step:
        status = step["status"]
        document = error_document(status, step.get("message", ""), step.get("error"))
        return JSONResponse(document, status, headers)
    model = str(body.get("model", ""))
    blocks = content_blocks(step, conversation.directory)
    if not streaming:
        return JSONResponse(message_document(step, model, blocks), headers=headers)
    return EventStream(message_events(step, model, blocks), step, headers)


def _refusal(message: str) -> Response:
    return JSONResponse(error_document(400, message), 400, {"request-id": REQUEST_ID})
