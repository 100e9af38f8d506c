"""What the routes need, made once at start-up and handed to them by FastAPI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.health_checks import HealthChecks
from store.protocol import Store
from temporal.job_commands import Dispatch


@dataclass(frozen=True, slots=True)
class State:
    """The API's parts; `default_priority` is that of jobs that name none."""

    store: Store
    dispatch: Dispatch
    health: HealthChecks
    github_server_url: str
    default_priority: int


def _state(request: Request) -> State:
    state = request.app.state.parts
    assert isinstance(state, State)
    return state


Parts = Annotated[State, Depends(_state)]
