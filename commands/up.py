"""`orchestrator up`: runs Temporal, the API and a worker on one host until Ctrl-C.

They are three child processes, each in its own session. A child that dies is restarted. If this
process dies for any reason, the kernel ends the children (PR_SET_PDEATHSIG, prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from pydantic import SecretStr

from domain.configuration.claude_env import CLAUDE_CREDENTIAL_NAMES, CLAUDE_SECRET_NAMES
from settings import Settings, SettingsError

RESTART_PAUSE_SECONDS = 2.0
"""Minimum time between two starts of a child, so that a failing child does not spin."""

START_SECONDS = 30.0
"""Temporal's port opens in 0.3 s and the API's in 2 s (measured); ten times that is an error."""

PORTS_CLOSED_TO_BROWSERS = (
    6665, 6666, 6667, 6668, 6669, 6679, 6697, 6566, 10080,
    1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000,
)  # fmt: skip
"""Browsers refuse to connect to these ports ("bad ports" of the Fetch Standard). All are above
1023; ports that other programs rarely use come first."""

_OF_CLAUDE_AND_GITHUB = CLAUDE_CREDENTIAL_NAMES | CLAUDE_SECRET_NAMES | {"GITHUB_TOKEN"}
_NOT_FOR_THE_API = _OF_CLAUDE_AND_GITHUB | {f"{name}_FILE" for name in _OF_CLAUDE_AND_GITHUB}
"""The API calls neither Claude nor GitHub, so it does not get their credentials."""

STOP_SECONDS = 10
"""Time for Temporal and the API to stop before they are killed."""

DRAIN_MARGIN_SECONDS = 20
"""Time for the worker to stop its remaining jobs after the drain."""

POLL_SECONDS = 0.05
"""Between two checks of a starting child's port."""

WATCH_SECONDS = 0.5
"""Between two checks of the running children; a restart is that much later at most."""

_PR_SET_PDEATHSIG = 1
_SECRET_FILE = "api-secret"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    """A child process that is restarted when it ends.

    `port` is open once the process is ready. If `is_quiet`, its standard output is discarded.
    """

    name: str
    arguments: list[str]
    environment: Mapping[str, str]
    port: int | None
    stop_seconds: float
    is_quiet: bool = False
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            self.arguments,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if self.is_quiet else None,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop within %.0f s: killing it", self.name, self.stop_seconds)
            self.process.kill()
            self.process.wait()


def up(
    settings: Settings,
    environment: Mapping[str, str],
    announce: Callable[[str], None],
    on_ready: Callable[[str], int] | None = None,
) -> int:
    """Run everything until SIGINT or SIGTERM; return the exit code.

    Args:
        settings: as read from `environment`.
        environment: for the API and the worker, which read secret files themselves. Temporal gets
            only PATH and HOME.
        announce: prints a line for the user.
        on_ready: called with the API's secret once everything is ready. Then everything is
            stopped, and its result is the exit code.

    Raises:
        SettingsError: a port is in use, or Temporal is not installed.
    """
    settings.host.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret, is_new = api_secret(settings)
    _require_free_ports(settings)
    # The UI has its own loopback address: several `up` on one host would run out of these ports.
    with (
        _reserved_port(_random_loopback_address()) as ui,
        _reserved_port("127.0.0.1") as metrics,
        _signals_as_exit(),
    ):
        children = _children(settings, environment, ui.getsockname(), metrics.getsockname()[1])
        try:
            for child in children:
                child.start()
                _await_port(child, settings)
            _announce(settings, announce, secret.get_secret_value() if is_new else None)
            if on_ready is not None:
                return on_ready(secret.get_secret_value())
            _keep_running(children)
        except SystemExit:
            announce(
                "Stopping. Running jobs get time to finish; the rest resumes at the next start."
            )
        finally:
            for child in reversed(children):
                child.stop()
    return 0


def api_secret(settings: Settings) -> tuple[SecretStr, bool]:
    """Return the API secret, and whether it is new.

    It is AGENT_API_SECRET, otherwise the secret in the data directory (mode 0600), which is
    generated at first use.
    """
    if settings.api.secret is not None:
        return settings.api.secret, False
    path = settings.host.data_dir / _SECRET_FILE
    if not path.exists():
        _keep_new_secret(path)
        return SecretStr(path.read_text("ascii").strip()), True
    return SecretStr(path.read_text("ascii").strip()), False


def _keep_new_secret(path: Path) -> None:
    """Write a new secret atomically, so that another process never reads a partial one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    # If two processes start at once, the secret of the first is kept.
    with contextlib.suppress(FileExistsError):
        os.link(name, path)
    os.unlink(name)


def _children(
    settings: Settings, environment: Mapping[str, str], ui: tuple[str, int], metrics_port: int
) -> list[_Child]:
    orchestrator = [sys.executable, str(Path(__file__).parents[1] / "cli.py")]
    ours = {**environment, "TEMPORAL_ADDRESS": f"127.0.0.1:{settings.temporal.port}"}
    public = {name: value for name, value in ours.items() if name not in _NOT_FOR_THE_API}
    api = ["api", "--embedded", "--temporal-ui", f"{ui[0]}:{ui[1]}"]
    drain = settings.jobs.drain_timeout.total_seconds() + DRAIN_MARGIN_SECONDS
    return [
        _temporal(settings, ui, metrics_port),
        _Child("worker", [*orchestrator, "worker", "--embedded"], ours, None, drain),
        _Child("api", [*orchestrator, *api], public, settings.api.port, STOP_SECONDS),
    ]


def _temporal(settings: Settings, ui: tuple[str, int], metrics_port: int) -> _Child:
    """Return Temporal's dev server, configured so that no web page can call it.

    Its HTTP API allows only the host "/", which no request can name. Its UI and metrics allow any
    host, so they use ports that browsers refuse; the API process serves the UI instead.

    One task-queue partition keeps the queue in order. WAL and synchronous=1 make it five times as
    fast. The higher poll rate saves 40 ms at each step of a job (all measured).
    """
    program = Path(sys.executable).with_name("temporal")
    if not program.is_file():
        raise SettingsError(f"{program} is missing. Run `make install`, or set TEMPORAL_ADDRESS.")
    options = {
        "--ip": "127.0.0.1",
        "--port": str(settings.temporal.port),
        "--http-port": str(settings.temporal.http_port),
        "--metrics-port": str(metrics_port),
        "--ui-ip": ui[0],
        "--ui-port": str(ui[1]),
        "--db-filename": str(settings.host.data_dir / "temporal.db"),
        "--namespace": settings.temporal.namespace,
        "--log-level": "error",
    }
    repeated = {
        "--sqlite-pragma": ["journal_mode=WAL", "synchronous=1"],
        "--dynamic-config-value": [
            "matching.numTaskqueueWritePartitions=1",
            "matching.numTaskqueueReadPartitions=1",
            "matching.enableFairness=true",
            "history.transferProcessorMaxPollRPS=1000",
            'frontend.httpAllowedHosts=["/"]',
        ],
    }
    arguments = [str(program), "server", "start-dev"]
    arguments += [part for option in options.items() for part in option]
    arguments += [part for flag, values in repeated.items() for v in values for part in (flag, v)]
    bare = {"PATH": settings.host.search_path, "HOME": str(settings.host.data_dir)}
    # Its standard output names the internal address of its UI, which would mislead the user.
    return _Child("Temporal", arguments, bare, settings.temporal.port, STOP_SECONDS, is_quiet=True)


def _random_loopback_address() -> str:
    """Return an address from 127.1.0.0 to 127.254.255.255."""
    return str(IPv4Address("127.1.0.0") + secrets.randbelow(254 * 2**16))


def _reserved_port(address: str) -> socket.socket:
    """Return a socket that is bound to a port that browsers refuse.

    Until the socket is closed, only Temporal can listen there.

    Raises:
        SettingsError: all these ports are in use.
    """
    for port in PORTS_CLOSED_TO_BROWSERS:
        reservation = socket.socket()
        try:
            reservation.bind((address, port))
        except OSError:
            reservation.close()
            continue
        # Now a program that sets this option too, as Temporal does, may bind the port (socket(7)).
        # Another `up` binds without the option, as above, and fails.
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return reservation
    ports = ", ".join(map(str, sorted(PORTS_CLOSED_TO_BROWSERS)))
    raise SettingsError(f"No port of {address} is free for Temporal. Free one of: {ports}.")


def _require_free_ports(settings: Settings) -> None:
    ports = {
        "PORT": settings.api.port,
        "TEMPORAL_PORT": settings.temporal.port,
        "TEMPORAL_HTTP_PORT": settings.temporal.http_port,
        "TEMPORAL_UI_PORT": settings.temporal.ui_port,
    }
    used = [f"{name} {port}" for name, port in ports.items() if _is_open(port)]
    if used:
        raise SettingsError(
            f"These ports are already in use: {', '.join(used)}. Stop the program that uses them "
            "(another `make up`?), or set the variables to other ports."
        )


def _is_open(port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _await_port(child: _Child, settings: Settings) -> None:
    deadline = time.monotonic() + START_SECONDS
    while child.port is not None and not _is_open(child.port):
        assert child.process is not None
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise SettingsError(f"{child.name} did not start. Its output above has the reason.")
        time.sleep(POLL_SECONDS)


def _announce(settings: Settings, announce: Callable[[str], None], new_secret: str | None) -> None:
    announce(f"API          http://127.0.0.1:{settings.api.port}  (documentation at /docs)")
    announce(f"Temporal UI  http://127.0.0.1:{settings.temporal.ui_port}")
    announce(f"Data         {settings.host.data_dir}")
    if new_secret is not None:
        path = settings.host.data_dir / _SECRET_FILE
        announce(f"Secret       {new_secret}  (shown once; stored in {path})")
    if settings.github.token is None:
        announce("No GITHUB_TOKEN is set: code jobs will fail. Set it and start again.")
    if not settings.claude.has_credentials:
        announce(
            "No Claude credential is set: Claude uses this user's own login, if there is one. "
            "Otherwise set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN and start again."
        )
    announce("Ready. Press Ctrl-C to stop everything.")


def _keep_running(children: list[_Child]) -> None:
    while True:
        time.sleep(WATCH_SECONDS)
        for child in children:
            assert child.process is not None
            code = child.process.poll()
            if code is not None and time.monotonic() - child.started_at > RESTART_PAUSE_SECONDS:
                log.error("%s ended with exit code %s: restarting it", child.name, code)
                child.start()


@contextlib.contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Raise SystemExit on SIGINT and SIGTERM, so that the children are stopped."""

    def leave(number: int, frame: object) -> None:
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, signal.SIG_IGN)
        raise SystemExit(0)

    before = {kind: signal.signal(kind, leave) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
