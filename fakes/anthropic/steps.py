"""The script language of the scripted model: the keys of a step, and how steps are counted."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from domain.errors import InvalidRequest


class Step(TypedDict, total=False):
    """The answer to one model call. Every key is optional; `{}` is an empty message.

    Keys:
        text, thinking: content blocks of the reply.
        tools: `[name, input]` pairs. `$CWD` in a string of an input is replaced with the working
            directory in the request.
        stop_reason: default `tool_use` with tools, otherwise `end_turn`.
        in_tokens, out_tokens: reported usage, default 100 and 20.
        status, error, message: an HTTP error with this status, error type and error message. After
            an unknown 400 or 422, the CLI repeats the call up to five times at once, each time
            with fewer beta features (measured). Set `times` for such a step.
        headers: additional response headers, on errors and on replies.
        times: number of calls that this step answers, default 1.
        drop: `before` closes the connection without a byte, `mid` after the first delta of a
            stream, `hang` never answers.
        delay: seconds before the first byte; chunk_delay: seconds before every delta.
        chunk: characters per delta, default 64.
        sse_error: type of an `error` event that ends the stream instead of the stop events.
    """

    text: str
    thinking: str
    tools: Sequence[Sequence[Any]]
    stop_reason: str
    in_tokens: int
    out_tokens: int
    status: int
    error: str
    message: str
    headers: Mapping[str, str]
    times: int
    drop: Literal["before", "mid", "hang"]
    delay: float
    chunk_delay: float
    chunk: int
    sse_error: str


_KEYS = frozenset(Step.__annotations__)
_DROPS = ("before", "mid", "hang")


@dataclass(frozen=True)
class Script:
    """Steps in the order of the calls that they answer. Immutable, so conversations can share it.

    `subagent_steps` answer calls with an agent id; each agent starts at the first step. With
    `repeat_last`, the last step answers all further calls.
    """

    steps: tuple[Step, ...]
    subagent_steps: tuple[Step, ...] = ()
    repeat_last: bool = False

    def step(self, taken: int, *, subagent: bool = False) -> Step | None:
        """Return the step for the call after `taken` calls, or None at the end of the script."""
        steps = self.subagent_steps if subagent else self.steps
        for step in steps:
            taken -= step.get("times", 1)
            if taken < 0:
                return step
        return steps[-1] if steps and self.repeat_last else None

    def remaining(self, taken: int) -> int:
        """Return the number of calls that the steps still answer, without `repeat_last`."""
        return max(0, sum(step.get("times", 1) for step in self.steps) - taken)


def make_script(
    steps: Sequence[Step], subagent: Sequence[Step] = (), *, repeat_last: bool = False
) -> Script:
    """Check the steps and return a script with copies of them.

    Raises:
        InvalidRequest: a step has an unknown key or an impossible value.
    """
    return Script(_checked(steps), _checked(subagent), repeat_last)


def _checked(steps: Sequence[Step]) -> tuple[Step, ...]:
    for step in steps:
        _check(step)
    return tuple(copy.deepcopy(step) for step in steps)


def _check(step: Step) -> None:
    if not isinstance(step, dict):
        raise InvalidRequest(f"A step is an object, not {step!r}.")
    if unknown := sorted(step.keys() - _KEYS):
        raise InvalidRequest(f"A step has no key {unknown[0]!r}; it may have {sorted(_KEYS)}.")
    if step.get("drop", "mid") not in _DROPS:
        raise InvalidRequest(f"The drop of a step is one of {_DROPS}, not {step['drop']!r}.")
    if step.get("times", 1) < 1 or step.get("chunk", 1) < 1:
        raise InvalidRequest("The times and the chunk of a step are at least 1.")
    for call in step.get("tools", ()):
        if len(call) != 2 or not isinstance(call[0], str) or not isinstance(call[1], dict):
            raise InvalidRequest(f"A tool call is a [name, input] pair, not {call!r}.")
