"""Faults of external services: GitHub's API, its git server, and the model."""

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
from tests.faults.scenarios import CodeScenario, Scenario

FETCH = (phases.Preparing,)
PUSH = (phases.BeforePush,)
PULL = (phases.BeforePullRequest,)
CLAUDE = (phases.Working,)
FAILED = frozenset({"failed"})
ALWAYS = 99

VALIDATION = {
    "message": "Validation Failed",
    "errors": [{"resource": "PullRequest", "code": "custom", "message": "Drafts are not allowed."}],
    "status": "422",
}


def _code(scenario: Scenario) -> CodeScenario:
    assert isinstance(scenario, CodeScenario)
    return scenario


def _fetch(scenario: Scenario) -> str:
    return f"{_code(scenario).git_path}/info/refs"


def _push(scenario: Scenario) -> str:
    return f"{_code(scenario).git_path}/git-receive-pack"


def _pulls(scenario: Scenario) -> str:
    return _code(scenario).pulls_path


def _github(
    name: str,
    path: Callable[[Scenario], str],
    phases: tuple[type[Scenario], ...],
    failure: str | None = None,
    **how: Any,
) -> Fault:
    """GitHub fails the next requests to a path."""

    def inject(scenario: Scenario) -> None:
        scenario.stack.github.fail_next(path(scenario), **how)

    ends = FAILED if failure else frozenset[str]()
    return Fault(name, each(inject), phases, ends, failure, ends_processes=False)


def _limit(scenario: Scenario) -> None:
    scenario.stack.github.limit_next(_pulls(scenario), seconds=3, times=2)


def _model(name: str, step: Step, times: int, failure: str | None = None) -> Fault:
    """The model answers the next calls with another step."""

    def inject(scenario: Scenario) -> None:
        scenario.installation.model.replace_next(scenario.script_name, step, times)

    ends = FAILED if failure else frozenset[str]()
    return Fault(name, each(inject), CLAUDE, ends, failure, ends_processes=False)


def _error(status: int, kind: str, **more: Any) -> Step:
    step: Step = {"status": status, "error": kind, "message": kind, **more}  # type: ignore[typeddict-item]
    return step


SERVICES: tuple[Fault, ...] = (
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
    _model("model: 401", _error(401, "authentication_error"), ALWAYS, "claude_authentication"),
    _model("model: stream dropped", {"text": "On my way", "drop": "mid"}, 1),
    _model("model: connection dropped", {"drop": "before"}, 1),
    _model("model: hangs", {"drop": "hang"}, 1),
)

RESET_SECONDS = 10


def _reach_limit(scenario: Scenario) -> None:
    """Answer the next call with a usage limit that ends soon."""
    prefix = "anthropic-ratelimit-unified-"
    headers = {
        f"{prefix}status": "rejected",
        f"{prefix}reset": str(int(time.time()) + RESET_SECONDS),
        f"{prefix}representative-claim": "five_hour",
    }
    step = _error(429, "rate_limit_error", headers=headers)
    scenario.installation.model.replace_next(scenario.script_name, step, 1)


def _subscribed(root: Path) -> AbstractContextManager[dict[str, str]]:
    """Use a subscription: API keys have no usage limits."""
    return contextlib.nullcontext(
        {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "subscription-token"}
    )


LIMIT = Fault(
    "model: 429, resets in 10 s",
    each(_reach_limit),
    (phases.Working, phases.MessageInFlight),
    ends_processes=False,
    setup=_subscribed,
)

ENVIRONMENT = {"API_TIMEOUT_MS": "5000"}
"""Shortens the CLI's time limit for a model call, which is ten minutes."""
