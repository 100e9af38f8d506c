"""The FastAPI application."""

from __future__ import annotations

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.middleware import Middleware

from api import clients, queue, repositories
from api import health as health_routes
from api.dependencies import Dependencies
from api.health_checks import HealthChecks
from api.http import documentation
from api.http.auth import RequireSecret
from api.http.body_limit import LimitBody
from api.http.errors import Error, handle_errors
from api.http.own_pages import LOOPBACK_ONLY, OwnHosts, OwnPagesOnly
from api.jobs import conversation, patch, routes
from domain.jobs import DEFAULT_PRIORITY
from store.protocol import Store
from temporal.job_commands import Dispatch

OPEN_ROUTERS = (documentation.router, health_routes.router)
ROUTERS = (
    clients.router,
    routes.router,
    patch.router,
    conversation.router,
    queue.router,
    repositories.router,
)


def create_app(
    store: Store,
    dispatch: Dispatch,
    secret: str,
    github_server_url: str,
    default_priority: int = DEFAULT_PRIORITY,
    hosts: OwnHosts = LOOPBACK_ONLY,
) -> FastAPI:
    """Return the application. The caller opens and closes `store`."""
    app = FastAPI(
        title="Claude Code Orchestrator",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
        middleware=[
            Middleware(OwnPagesOnly, hosts=hosts),
            Middleware(RequireSecret, secret=secret, browser_paths=documentation.BROWSER_PATHS),
            Middleware(LimitBody),
        ],
    )
    health = HealthChecks(store, dispatch)
    app.state.dependencies = Dependencies(
        store, dispatch, health, github_server_url, default_priority
    )
    handle_errors(app)
    for router in OPEN_ROUTERS:
        app.include_router(router)
    # RequireSecret checks the secret. This adds it to the OpenAPI document, for the page at /docs.
    bearer_secret = Security(HTTPBearer(auto_error=False, description="AGENT_API_SECRET"))
    for router in ROUTERS:
        app.include_router(router, dependencies=[bearer_secret])
    return app
