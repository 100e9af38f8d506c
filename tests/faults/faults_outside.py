"""Faults of what the installation depends on: GitHub's API, its git server, and the model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fakes.anthropic.steps import Step
from tests.faults import phases
from tests.faults.fault import Fault, each
from tests.faults.situations import CodeSituation, Situation

FETCH = (phases.Preparing,)
PUSH = (phases.BeforePush,)
PULL = (phases.BeforePullRequest,)
CLAUDE = (phases.Working,)
FAILED = frozenset({"failed"})
FOR_EVER = 99

VALIDATION = {
    "message": "Validation Failed",
    "errors": [{"resource": "PullRequest", "code": "custom", "message": "Drafts are not allowed."}],
    "status": "422",
}


def _code(situation: Situation) -> CodeSituation:
    assert isinstance(situation, CodeSituation)
    return situation


def _fetch(situation: Situation) -> str:
    return f"{_code(situation).git_path}/info/refs"


def _push(situation: Situation) -> str:
    return f"{_code(situation).git_path}/git-receive-pack"


def _pulls(situation: Situation) -> str:
    return _code(situation).pulls_path


def _github(
    name: str,
    path: Callable[[Situation], str],
    found_in: tuple[type[Situation], ...],
    failure: str | None = None,
    **how: Any,
) -> Fault:
    """GitHub answers the next requests to a path in some other way."""

    def strike(situation: Situation) -> None:
        situation.stack.github.fail_next(path(situation), **how)

    ends = FAILED if failure else frozenset[str]()
    return Fault(name, each(strike), found_in, ends, failure, ends_processes=False)


def _limit(situation: Situation) -> None:
    situation.stack.github.limit_next(_pulls(situation), seconds=3, times=2)


def _model(name: str, step: Step, times: int, failure: str | None = None) -> Fault:
    """The model answers the next calls in some other way."""

    def strike(situation: Situation) -> None:
        situation.place.model.disturb(situation.script_name, step, times)

    ends = FAILED if failure else frozenset[str]()
    return Fault(name, each(strike), CLAUDE, ends, failure, ends_processes=False)


def _error(status: int, kind: str, **more: Any) -> Step:
    step: Step = {"status": status, "error": kind, "message": kind, **more}  # type: ignore[typeddict-item]
    return step


OUTSIDE: tuple[Fault, ...] = (
    _github("GitHub: fetch 503, 3 times", _fetch, FETCH, status=503, times=3),
    _github("GitHub: fetch 401", _fetch, FETCH, "github_authentication", status=401, times=9),
    _github("GitHub: fetch dropped", _fetch, FETCH, status=None),
    _github("GitHub: push 502, 2 times", _push, PUSH, status=502, times=2),
    _github("GitHub: push 403", _push, PUSH, "github_permission", status=403),
    _github("GitHub: push dropped, refs updated", _push, PUSH, status=None, after=True),
    _github("GitHub: API 502, 2 times", _pulls, PULL, status=502, times=2),
    _github("GitHub: API 401", _pulls, PULL, "github_authentication", status=401),
    _github("GitHub: API 403", _pulls, PULL, "github_permission", status=403),
    _github("GitHub: API 422", _pulls, PULL, "github_refused", status=422, body=VALIDATION),
    _github("GitHub: API 502, PR created", _pulls, PULL, status=502, after=True),
    _github("GitHub: API dropped, PR created", _pulls, PULL, status=None, after=True),
    _github("GitHub: API hangs, PR created", _pulls, PULL, status=502, after=True, delay=17.0),
    Fault("GitHub: API rate limit", each(_limit), PULL, ends_processes=False),
    _model("model: 529, 2 times", _error(529, "overloaded_error"), 2),
    _model("model: 529, 6 times", _error(529, "overloaded_error"), 6),
    _model("model: 429, 2 times", _error(429, "rate_limit_error"), 2),
    _model("model: 401", _error(401, "authentication_error"), FOR_EVER, "claude_authentication"),
    _model("model: stream dropped", {"text": "On my way", "drop": "mid"}, 1),
    _model("model: connection dropped", {"drop": "before"}, 1),
    _model("model: hangs", {"drop": "hang"}, 1),
)

RESETS_IN = 10


def _use_up(situation: Situation) -> None:
    """Let the next call meet a usage limit that ends soon."""
    prefix = "anthropic-ratelimit-unified-"
    headers = {
        f"{prefix}status": "rejected",
        f"{prefix}reset": str(int(time.time()) + RESETS_IN),
        f"{prefix}representative-claim": "five_hour",
    }
    step = _error(429, "rate_limit_error", headers=headers)
    situation.place.model.disturb(situation.script_name, step, 1)


def _subscribed(root: Path) -> AbstractContextManager[dict[str, str]]:
    """Only a subscription has usage limits."""
    return contextlib.nullcontext(
        {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "subscription-token"}
    )


LIMIT = Fault(
    "model: 429, resets in 10 s",
    each(_use_up),
    (phases.Working, phases.MessageInFlight),
    ends_processes=False,
    surroundings=_subscribed,
)

ENVIRONMENT = {"API_TIMEOUT_MS": "5000"}
"""The CLI's own limit is ten minutes."""
