"""The HTTP application, put together."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware import Middleware

from api import (
    client_routes,
    conversation_routes,
    health_routes,
    job_routes,
    new_job_routes,
    patch_routes,
    queue_routes,
    repository_routes,
)
from api.dispatch import Dispatch
from api.health import HealthChecks
from api.http.auth import RequireSecret
from api.http.body_limit import LimitBody
from api.http.errors import handle_errors
from api.schemas import Error
from api.state import State
from domain.jobs import DEFAULT_PRIORITY
from store.protocol import Store

ROUTERS = (
    health_routes.router,
    client_routes.router,
    new_job_routes.router,
    job_routes.router,
    patch_routes.router,
    conversation_routes.router,
    queue_routes.router,
    repository_routes.router,
)


def create_app(
    store: Store,
    dispatch: Dispatch,
    secret: str,
    github_server_url: str,
    default_priority: int = DEFAULT_PRIORITY,
) -> FastAPI:
    """Return the application. `store` is open; the caller closes it."""
    app = FastAPI(
        title="Claude Code Orchestrator",
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
        middleware=[Middleware(RequireSecret, secret=secret), Middleware(LimitBody)],
    )
    health = HealthChecks(store, dispatch)
    app.state.parts = State(store, dispatch, health, github_server_url, default_priority)
    handle_errors(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
