"""A scripted model without a cursor, so that a lost answer does not lose a step."""

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


class StatelessModel(ScriptedModel):
    """Chooses each step from the conversation, as a real model does.

    A step whose answer was lost is sent again. A step that the session contains is not.
    """

    def __init__(self) -> None:
        super().__init__(reply)
        self._steps: dict[str | None, list[Step]] = {}
        self._replacements: dict[str | None, list[Step]] = {}
        app = _App(self._scripts, self._steps, self._replacements)
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

    def replace_next(self, name: str, step: Step, times: int) -> None:
        """Answer the next calls of a script with this step instead."""
        self._replacements[name] = [step] * times


class _App(ModelApp):
    def __init__(
        self,
        scripts: Scripts,
        steps: dict[str | None, list[Step]],
        replacements: dict[str | None, list[Step]],
    ) -> None:
        super().__init__(scripts, reply)
        self._steps = steps
        self._replacements = replacements
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
        if self._replacements.get(name):
            return self._replacements[name].pop()
        return steps[min(_calls(recorded["body"]), len(steps) - 1)]


def _calls(body: Any) -> int:
    """Return the number of tool calls. Messages do not count: the CLI adds some when it resumes."""
    return sum(
        block["type"] == "tool_use"
        for message in body["messages"]
        if message["role"] == "assistant" and isinstance(message["content"], list)
        for block in message["content"]
    )
