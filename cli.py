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

from domain.errors import OrchestratorError
from settings import Secret, Settings, current_environment
from store.factory import SupabaseProject, make_store
from store.protocol import Store

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Mistakes are one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except OrchestratorError as error:
        print(f"orchestrator: {error.message}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("orchestrator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up_command = commands.add_parser("up", help="everything on this machine, until Ctrl-C")
    up_command.set_defaults(run=_up)
    demo = commands.add_parser("demo", help="one code job and one conversation, without accounts")
    demo.set_defaults(run=_demo)
    doctor = commands.add_parser("doctor", help="what would keep a job from running here")
    doctor.set_defaults(run=_doctor)
    api = commands.add_parser("api", help="the HTTP API alone, against TEMPORAL_ADDRESS")
    api.add_argument("--temporal-ui", metavar="HOST:PORT", help=argparse.SUPPRESS)
    api.set_defaults(run=_api)
    worker = commands.add_parser("worker", help="a worker alone, against TEMPORAL_ADDRESS")
    worker.add_argument("--role", choices=["flow", "host", "all"], default="all")
    worker.add_argument("--check", action="store_true", help="is one polling on this machine?")
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
    _configure_logging(hide=[secret, settings.github_token, settings.supabase_key])
    asyncio.run(_serve_api(settings, secret, options.temporal_ui))
    return 0


def _worker(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if options.check:
        return 0 if asyncio.run(_is_working(settings)) else 1
    _configure_logging(hide=[settings.api_secret, settings.github_token, settings.supabase_key])
    asyncio.run(_work(settings, options.role))
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    settings = Settings.from_env()
    if not options.embedded:
        settings.require_for_production()
    return settings


def _store(settings: Settings) -> Store:
    project = None
    if settings.supabase_url is not None and settings.supabase_key is not None:
        project = SupabaseProject(settings.supabase_url, settings.supabase_key.reveal())
    return make_store(settings.sqlite_path, project)


def _secret(settings: Settings) -> Secret:
    from commands.up import api_secret

    return api_secret(settings)[0]


async def _serve_api(settings: Settings, secret: Secret, temporal_ui: str | None) -> None:
    """Serve the API, and, on a port of its own, Temporal's UI where its address is given."""
    from api.app import create_app
    from api.http.own_pages import OwnHosts
    from api.http.serving import make_server, serve
    from api.temporal_ui import temporal_ui_app
    from temporal.client import connect
    from temporal.job_commands import Dispatch
    from wiring import job_limits

    hosts = OwnHosts(settings.bind_address, settings.api_hosts)
    store = _store(settings)
    await store.open()
    try:
        temporal = await connect(
            settings.temporal_address or "", settings.temporal_namespace, lazy=True
        )
        dispatch = Dispatch(temporal, job_limits(settings))
        app = create_app(
            store,
            dispatch,
            secret.reveal(),
            settings.github_server_url,
            settings.job_priority,
            hosts,
        )
        servers = [make_server(app, settings.bind_address, settings.port)]
        async with httpx.AsyncHTTPTransport() as transport:
            if temporal_ui is not None:
                ui = temporal_ui_app(temporal_ui, transport, OwnHosts(listed=settings.api_hosts))
                servers.insert(0, make_server(ui, "127.0.0.1", settings.temporal_ui_port))
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
            settings.temporal_address or "", settings.temporal_namespace
        )
        await run_worker(settings, store, temporal, Role(role), stop)
    finally:
        await store.close()


async def _is_working(settings: Settings) -> bool:
    from activities.job_records import RECORDS_TASK_QUEUE
    from activities.slots import SLOTS_TASK_QUEUE
    from temporal.client import connect, is_polling

    temporal = await connect(settings.temporal_address or "", settings.temporal_namespace)
    machine = socket.gethostname()
    queues = (SLOTS_TASK_QUEUE, RECORDS_TASK_QUEUE)
    return any([await is_polling(temporal, queue, machine) for queue in queues])


class _Hiding(logging.Formatter):
    """Writes *** for each secret, wherever it comes from: the last line of defence."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__(LOG_FORMAT)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _configure_logging(level: int = logging.INFO, hide: Sequence[Secret | None] = ()) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Hiding([secret.reveal() for secret in hide if secret is not None]))
    logging.basicConfig(level=level, handlers=[handler])


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
