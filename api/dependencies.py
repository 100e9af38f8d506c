"""The objects that routes use. `create_app` makes them once; FastAPI injects them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.health_checks import HealthChecks
from store.protocol import Store
from temporal.job_commands import Dispatch


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The objects that routes use. Jobs without a priority get `default_priority`."""

    store: Store
    dispatch: Dispatch
    health: HealthChecks
    github_server_url: str
    default_priority: int


def _dependencies(request: Request) -> Dependencies:
    dependencies = request.app.state.dependencies
    assert isinstance(dependencies, Dependencies)
    return dependencies


Injected = Annotated[Dependencies, Depends(_dependencies)]
