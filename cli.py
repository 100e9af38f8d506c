"""The command line: `orchestrator up | demo | doctor | api | worker`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence

import httpx
from pydantic import SecretStr

from domain.errors import OrchestratorError
from settings import Settings, current_environment
from store.factory import SupabaseProject, make_store
from store.protocol import Store

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code. Print errors as one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except OrchestratorError as error:
        print(f"orchestrator: {error.message}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("orchestrator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up_command = commands.add_parser("up", help="run everything on this host until Ctrl-C")
    up_command.set_defaults(run=_up)
    demo = commands.add_parser("demo", help="run a code job and a conversation without accounts")
    demo.set_defaults(run=_demo)
    doctor = commands.add_parser("doctor", help="check that jobs can run on this host")
    doctor.set_defaults(run=_doctor)
    api = commands.add_parser("api", help="run only the HTTP API, against TEMPORAL_ADDRESS")
    api.add_argument("--temporal-ui", metavar="HOST:PORT", help=argparse.SUPPRESS)
    api.set_defaults(run=_api)
    worker = commands.add_parser("worker", help="run only a worker, against TEMPORAL_ADDRESS")
    worker.add_argument("--role", choices=["flow", "host", "all"], default="all")
    worker.add_argument(
        "--check", action="store_true", help="exit with 0 if a worker polls on this host"
    )
    worker.set_defaults(run=_worker)
    for command in (api, worker):
        command.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    return parser


def _up(options: argparse.Namespace) -> int:
    from commands.up import up

    _configure_logging()
    return up(Settings.from_env(), current_environment(), _say)


def _demo(options: argparse.Namespace) -> int:
    from commands.demo import demonstrate

    _configure_logging(logging.WARNING)
    return demonstrate(current_environment(), _say)


def _doctor(options: argparse.Namespace) -> int:
    from commands.doctor.examination import examine

    _configure_logging(logging.ERROR)
    settings = Settings.from_env()
    return asyncio.run(examine(settings, _store(settings), _say))


def _api(options: argparse.Namespace) -> int:
    settings = _settings(options)
    secret = _secret(settings)
    _configure_logging(hide=[secret, settings.github.token, settings.store.supabase_key])
    # `up` offers the UI to this host only; a container is reached from outside.
    ui_host = "127.0.0.1" if options.embedded else settings.api.bind_address
    asyncio.run(_serve_api(settings, secret, options.temporal_ui, ui_host))
    return 0


def _worker(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if options.check:
        return 0 if asyncio.run(_is_working(settings)) else 1
    _configure_logging(
        hide=[settings.api.secret, settings.github.token, settings.store.supabase_key]
    )
    asyncio.run(_work(settings, options.role))
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    settings = Settings.from_env()
    if not options.embedded:
        settings.require_for_production()
    return settings


def _store(settings: Settings) -> Store:
    project = None
    if settings.store.supabase_url is not None and settings.store.supabase_key is not None:
        project = SupabaseProject(
            settings.store.supabase_url, settings.store.supabase_key.get_secret_value()
        )
    return make_store(settings.host.sqlite_path, project)


def _secret(settings: Settings) -> SecretStr:
    from commands.up import api_secret

    return api_secret(settings)[0]


async def _serve_api(
    settings: Settings, secret: SecretStr, temporal_ui: str | None, ui_host: str
) -> None:
    """Serve the API and, if its address is given, Temporal's UI on another port of `ui_host`."""
    from api.app import create_app
    from api.http.own_pages import OwnHosts
    from api.http.serving import make_server, serve
    from api.temporal_ui import temporal_ui_app
    from temporal.client import connect
    from temporal.job_commands import Dispatch
    from wiring import job_limits

    hosts = OwnHosts(settings.api.bind_address, settings.api.hosts)
    store = _store(settings)
    await store.open()
    try:
        temporal = await connect(
            settings.temporal.address or "", settings.temporal.namespace, lazy=True
        )
        dispatch = Dispatch(temporal, job_limits(settings))
        app = create_app(
            store,
            dispatch,
            secret.get_secret_value(),
            settings.github.server_url,
            settings.jobs.priority,
            hosts,
        )
        servers = [make_server(app, settings.api.bind_address, settings.api.port)]
        async with httpx.AsyncHTTPTransport() as transport:
            if temporal_ui is not None:
                ui = temporal_ui_app(temporal_ui, transport, OwnHosts(listed=settings.api.hosts))
                servers.insert(0, make_server(ui, ui_host, settings.temporal.ui_port))
            await serve(*servers)
    finally:
        await store.close()


async def _work(settings: Settings, role: str) -> None:
    from temporal.client import connect_with_retries
    from worker import Role, run_worker

    stop = asyncio.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(kind, stop.set)
    store = _store(settings)
    await store.open()
    try:
        temporal = await connect_with_retries(
            settings.temporal.address or "", settings.temporal.namespace
        )
        await run_worker(settings, store, temporal, Role(role), stop)
    finally:
        await store.close()


async def _is_working(settings: Settings) -> bool:
    from activities.job_records import RECORDS_TASK_QUEUE
    from activities.slots import SLOTS_TASK_QUEUE
    from temporal.client import connect, is_polling

    temporal = await connect(settings.temporal.address or "", settings.temporal.namespace)
    host = socket.gethostname()
    queues = (SLOTS_TASK_QUEUE, RECORDS_TASK_QUEUE)
    return any([await is_polling(temporal, queue, host) for queue in queues])


class _Hiding(logging.Formatter):
    """Replaces each secret with ***, as a last defence against logging one."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__(LOG_FORMAT)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _configure_logging(level: int = logging.INFO, hide: Sequence[SecretStr | None] = ()) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        _Hiding([secret.get_secret_value() for secret in hide if secret is not None])
    )
    logging.basicConfig(level=level, handlers=[handler])


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
