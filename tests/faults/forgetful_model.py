"""A scripted model that can be held, and that loses count of nothing when an answer is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request

from fakes.anthropic.app import ModelApp
from fakes.anthropic.default_replies import reply
from fakes.anthropic.scripts import Scripts
from fakes.anthropic.server import Conversation, RecordedRequest, ScriptedModel, Step
from tests.faults.holding import HeldRequests


class ForgetfulModel(ScriptedModel):
    """Chooses each step by what the conversation already holds, as a real model does.

    A step whose answer got lost is thus given again, and one that the session remembers is not.
    """

    def __init__(self) -> None:
        super().__init__(reply)
        self._steps: dict[str | None, list[Step]] = {}
        self._disturbances: dict[str | None, list[Step]] = {}
        app = _App(self._scripts, self._steps, self._disturbances)
        self.calls = app.calls
        self._app = app

    def script(
        self,
        name: str,
        steps: Sequence[Step],
        *,
        subagent: Sequence[Step] = (),
        repeat_last: bool = False,
    ) -> str:
        self._steps[name] = list(steps)
        return super().script(name, steps, subagent=subagent, repeat_last=repeat_last)

    def disturb(self, name: str, step: Step, times: int) -> None:
        """Let the next calls of a script get this instead."""
        self._disturbances[name] = [step] * times


class _App(ModelApp):
    def __init__(
        self,
        scripts: Scripts,
        steps: dict[str | None, list[Step]],
        disturbances: dict[str | None, list[Step]],
    ) -> None:
        super().__init__(scripts, reply)
        self._steps = steps
        self._disturbances = disturbances
        self.calls = HeldRequests(super().asgi())

    def asgi(self) -> Starlette:
        return cast(Starlette, self.calls)

    def _step(
        self,
        request: Request,
        recorded: RecordedRequest,
        conversation: Conversation,
        name: str | None,
    ) -> Step:
        steps = self._steps.get(name)
        if steps is None or not recorded["main"]:
            return super()._step(request, recorded, conversation, name)
        if self._disturbances.get(name):
            return self._disturbances[name].pop()
        return steps[min(_calls(recorded["body"]), len(steps) - 1)]


def _calls(body: Any) -> int:
    """How many tools were called so far; the CLI also adds answers of its own when it resumes."""
    return sum(
        block["type"] == "tool_use"
        for message in body["messages"]
        if message["role"] == "assistant" and isinstance(message["content"], list)
        for block in message["content"]
    )
