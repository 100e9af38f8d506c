"""Every setting, read once from the environment: the only place that reads it.

`Settings.from_env` reports all problems in one message. Secrets are `Secret`s: their text shows in
no representation, log or traceback.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from agent.claude.environment import (
    CERTIFICATE_NAMES,
    CLAUDE_SECRET_NAMES,
    LOGIN_REPLACING_NAMES,
    PASSED_NAMES,
    can_hide_credential,
    credential_identity,
)
from agent.claude.mcp import McpServer, read_servers
from domain.errors import OrchestratorError
from domain.jobs import (
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    MAX_TIMEOUT_MINUTES,
    MAX_TURNS,
    MIN_PRIORITY,
)
from domain.names.http_hosts import HttpHost, parse_http_host
from sandbox.containment import SYSTEM_TREES
from sandbox.modes import SandboxMode, inside_path
from sandbox.proxy.policy import HostRule, Network
from sandbox.supervision.limits import Limits

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")
V = TypeVar("V")

SECRET_NAMES = CLAUDE_SECRET_NAMES | {
    "AGENT_API_SECRET",
    "GITHUB_TOKEN",
    "SUPABASE_SERVICE_ROLE_KEY",
}
"""Each can also be given as NAME_FILE, the path of a file that holds it."""

_MAX_SECRET_BYTES = 64 * 1024
_HOST_ID = re.compile(r"[A-Za-z0-9._-]{1,63}")
_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"


class SettingsError(OrchestratorError):
    """One or more settings are missing or wrong; the message names each with its remedy."""


class Secret:
    """A text that shows itself only through `reveal`."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a process. Paths are absolute.

    `claude_environment` holds what is handed to Claude and to nothing else: its credentials, proxy
    and locale variables.
    """

    port: int
    bind_address: str
    api_hosts: tuple[HttpHost, ...]
    api_secret: Secret | None
    max_concurrent_jobs: int
    data_dir: Path
    repos_dir: Path
    worktrees_dir: Path
    supabase_url: str | None
    supabase_key: Secret | None
    github_token: Secret | None
    github_api_url: str
    github_server_url: str
    temporal_address: str | None
    temporal_namespace: str
    temporal_port: int
    temporal_http_port: int
    temporal_ui_port: int
    host_id: str
    claude_bin: str | None
    claude_model: str | None
    claude_max_turns: int | None
    claude_max_budget_usd: float | None
    mcp_config: Path | None
    mcp_servers: tuple[McpServer, ...]
    task_tools: tuple[str, ...]
    git_author_name: str
    git_author_email: str
    job_priority: int
    pull_request_draft: bool
    pull_request_labels: tuple[str, ...]
    pull_request_reviewers: tuple[str, ...]
    job_timeout: timedelta
    turn_timeout: timedelta
    silence_timeout: timedelta
    queue_timeout: timedelta | None
    task_idle_timeout: timedelta
    keep_work: timedelta
    drain_timeout: timedelta
    sandbox: SandboxMode
    sandbox_network: Network
    sandbox_hosts: tuple[HostRule, ...]
    sandbox_read: tuple[Path, ...]
    sandbox_limits: Limits
    search_path: str
    operator_home: Path
    claude_environment: Mapping[str, str] = field(repr=False)

    @property
    def uses_supabase(self) -> bool:
        """Whether rows are kept in Supabase; otherwise in SQLite under `data_dir`."""
        return self.supabase_url is not None

    @property
    def sqlite_path(self) -> Path:
        """The embedded store's file."""
        return self.data_dir / "orchestrator.db"

    @property
    def sessions_dir(self) -> Path:
        """Where each job's Claude has its home directory."""
        return self.data_dir / "sessions"

    @property
    def sandbox_search_path(self) -> str:
        """PATH for Claude and its commands: the directories that they can see."""
        return inside_path(self.sandbox, self.search_path, self.sandbox_read)

    @property
    def certificate_files(self) -> tuple[Path, ...]:
        """The files of certificates that the operator has named for Claude and its commands."""
        names = CERTIFICATE_NAMES & self.claude_environment.keys()
        return tuple(Path(self.claude_environment[name]) for name in sorted(names))

    @property
    def mcp_files(self) -> tuple[Path, ...]:
        """MCP_CONFIG, and the files and directories that the commands of its servers name."""
        if self.mcp_config is None:
            return ()
        return (self.mcp_config, *(path for server in self.mcp_servers for path in server.files))

    def is_private(self, path: Path) -> bool:
        """Return whether a path is, or contains, a directory that a job must never see."""
        private = (self.data_dir, self.repos_dir, self.worktrees_dir, self.operator_home)
        found = os.path.realpath(path)
        return any(Path(os.path.realpath(each)).is_relative_to(found) for each in private)

    @property
    def sandbox_dir(self) -> Path:
        """What all sandboxes of this host have in common."""
        return self.data_dir / "sandbox"

    @property
    def has_claude_credentials(self) -> bool:
        """Whether Claude's credentials come by environment, not by the operator's own login."""
        return not LOGIN_REPLACING_NAMES.isdisjoint(self.claude_environment)

    @property
    def hides_credential(self) -> bool:
        """Whether the proxy has Claude's credential, and jobs do not."""
        return self.sandbox is not SandboxMode.OFF and can_hide_credential(self.claude_environment)

    @property
    def network_of_jobs(self) -> Network:
        """How wide the network of jobs is: only SANDBOX=on gives them one of their own."""
        return self.sandbox_network if self.sandbox is SandboxMode.ON else Network.HOST

    @property
    def is_subscription(self) -> bool:
        """Whether Claude is paid for by a subscription, so that what it reports costs nobody that.

        An API key, a proxy's token and the clouds are billed by use; each comes before the rest.
        """
        billed = LOGIN_REPLACING_NAMES - {"CLAUDE_CODE_OAUTH_TOKEN"}
        return billed.isdisjoint(self.claude_environment)

    @property
    def credential_id(self) -> str:
        """Tells Claude credentials apart, and nothing of them: machines that share one share this.

        A login of the operator is told apart by machine only.
        """
        text = f"login/{self.host_id}/{self.operator_home}"
        if self.has_claude_credentials:
            telling = credential_identity(self.claude_environment)
            text = "\n".join(f"{name}={value}" for name, value in sorted(telling.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def data_id(self) -> str:
        """Tells this installation's processes from those of another on the same machine."""
        return hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:12]

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check everything.

        Raises:
            SettingsError: naming every problem at once.
        """
        return _Reader(os.environ if environ is None else environ).settings()

    def require_for_production(self) -> None:
        """Check what the specification requires of `orchestrator api` and `orchestrator worker`.

        Raises:
            SettingsError: naming everything that is missing.
        """
        required = {
            "AGENT_API_SECRET": self.api_secret,
            "TEMPORAL_ADDRESS": self.temporal_address,
            "SUPABASE_URL": self.supabase_url,
            "SUPABASE_SERVICE_ROLE_KEY": self.supabase_key,
            "GITHUB_TOKEN": self.github_token,
        }
        missing = [name for name, value in required.items() if value is None]
        if missing:
            raise SettingsError(
                "These required variables are not set: " + ", ".join(missing) + ". Set them, or "
                "for a secret NAME_FILE (see .env.example); `orchestrator up` needs none of them."
            )


class _Reader:
    """Reads variables one by one and gathers the problems."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._problems: list[str] = []
        self._environ = {**environ, **self._secrets_in_files(environ)}

    def settings(self) -> Settings:
        home = self._path("HOME", Path("/"))
        data_dir = self._directory("DATA_DIR", home / ".claude-code-orchestrator")
        supabase_url, supabase_key = self._supabase()
        mcp_config = self._file("MCP_CONFIG")
        settings = Settings(
            port=self._whole("PORT", 3456, 1, 65535),
            bind_address=self._text("BIND_ADDRESS") or "127.0.0.1",
            api_hosts=self._hosts("API_HOSTS"),
            api_secret=self._secret("AGENT_API_SECRET"),
            max_concurrent_jobs=self._whole("MAX_CONCURRENT_JOBS", 2, 1, 1000),
            data_dir=data_dir,
            repos_dir=self._directory("REPOS_DIR", home / "repos"),
            worktrees_dir=self._directory("WORKTREES_DIR", home / "worktrees"),
            supabase_url=supabase_url,
            supabase_key=supabase_key,
            github_token=self._secret("GITHUB_TOKEN"),
            github_api_url=self._url("GITHUB_API_URL", "https://api.github.com"),
            github_server_url=self._url("GITHUB_SERVER_URL", "https://github.com"),
            temporal_address=self._text("TEMPORAL_ADDRESS"),
            temporal_namespace=self._text("TEMPORAL_NAMESPACE") or "default",
            temporal_port=self._whole("TEMPORAL_PORT", 7233, 1, 65535),
            temporal_http_port=self._whole("TEMPORAL_HTTP_PORT", 7243, 1, 65535),
            temporal_ui_port=self._whole("TEMPORAL_UI_PORT", 8233, 1, 65535),
            host_id=self._host_id(),
            claude_bin=self._text("CLAUDE_BIN"),
            claude_model=self._text("CLAUDE_MODEL"),
            claude_max_turns=self._optional_whole("CLAUDE_MAX_TURNS", 1, MAX_TURNS),
            claude_max_budget_usd=self._dollars("CLAUDE_MAX_BUDGET_USD"),
            mcp_config=mcp_config,
            mcp_servers=self._mcp_servers(mcp_config),
            task_tools=self._tools(),
            git_author_name=self._text("GIT_AUTHOR_NAME") or "Claude Code Orchestrator",
            git_author_email=self._text("GIT_AUTHOR_EMAIL")
            or "claude-code-orchestrator@users.noreply.github.com",
            job_priority=self._whole("JOB_PRIORITY", DEFAULT_PRIORITY, MIN_PRIORITY, MAX_PRIORITY),
            pull_request_draft=self._flag("PULL_REQUEST_DRAFT"),
            pull_request_labels=self._names("PULL_REQUEST_LABELS"),
            pull_request_reviewers=self._names("PULL_REQUEST_REVIEWERS"),
            job_timeout=self._minutes("JOB_TIMEOUT_MINUTES", 720, MAX_TIMEOUT_MINUTES),
            turn_timeout=self._minutes("TURN_TIMEOUT_MINUTES", 240, MAX_TIMEOUT_MINUTES),
            silence_timeout=self._minutes("SILENCE_TIMEOUT_MINUTES", 60, MAX_TIMEOUT_MINUTES),
            queue_timeout=self._optional_minutes("QUEUE_TIMEOUT_MINUTES", 525_600),
            task_idle_timeout=self._minutes("TASK_IDLE_TIMEOUT_MINUTES", 10_080, 525_600),
            keep_work=timedelta(days=self._whole("KEEP_WORK_DAYS", 30, 1, 3650)),
            drain_timeout=timedelta(seconds=self._whole("DRAIN_TIMEOUT_SECONDS", 20, 0, 86_400)),
            sandbox=self._one_of("SANDBOX", SandboxMode, SandboxMode.ON),
            sandbox_network=self._one_of("SANDBOX_NETWORK", Network, Network.INTERNET),
            sandbox_hosts=self._host_rules(),
            sandbox_read=self._paths("SANDBOX_READ"),
            sandbox_limits=self._sandbox_limits(),
            search_path=self._search_path(),
            operator_home=home,
            claude_environment={
                name: self._environ[name] for name in sorted(PASSED_NAMES) if self._text(name)
            },
        )
        self._check_own(settings)
        self._check_visible("MCP_CONFIG", settings.mcp_files, settings)
        self._check_visible("SANDBOX_READ", settings.sandbox_read, settings)
        if self._problems:
            raise SettingsError("The settings are not usable. " + " ".join(self._problems))
        return settings

    def _check_own(self, settings: Settings) -> None:
        """Refuse directories of our own where a job can read everything, or puts programs."""
        own = {
            "DATA_DIR": settings.data_dir,
            "REPOS_DIR": settings.repos_dir,
            "WORKTREES_DIR": settings.worktrees_dir,
        }
        programs = [Path(entry) for entry in settings.search_path.split(":")]
        for name, path in own.items():
            for entry in programs:
                if entry.resolve().is_relative_to(path):
                    self._problems.append(
                        f"PATH has {entry}, which is in {name}: jobs could put programs there. "
                        "Remove it."
                    )
            trees = [tree for tree in SYSTEM_TREES if path.is_relative_to(tree)]
            if trees and settings.sandbox is not SandboxMode.OFF:
                self._problems.append(
                    f"{name} is below {trees[0]}, where jobs can read every file. Set it to a "
                    "directory elsewhere."
                )

    def _check_visible(self, name: str, paths: Iterable[Path], settings: Settings) -> None:
        """Refuse to show a job a directory that has secrets, or the work of others, in it."""
        private = sorted({str(path) for path in paths if settings.is_private(path)})
        if private:
            self._problems.append(
                f"{name} names {', '.join(private)}, which is or contains HOME, DATA_DIR, "
                "REPOS_DIR or WORKTREES_DIR. Jobs must not see those; name what is needed only."
            )

    def _secrets_in_files(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Read the secrets that are given as files, by the names of their variables."""
        secrets = {}
        for name in sorted(SECRET_NAMES):
            path = environ.get(f"{name}_FILE", "").strip()
            if not path:
                continue
            if environ.get(name, "").strip():
                self._problems.append(f"{name} and {name}_FILE are both set: set one of them.")
            try:
                secrets[name] = _secret_in(path)
            except ValueError as error:
                self._problems.append(f"{name}_FILE names {path!r}, which {error}.")
        return secrets

    def _text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def _secret(self, name: str) -> Secret | None:
        text = self._text(name)
        if text and not text.isprintable():
            self._problems.append(f"{name} contains control characters.")
        return Secret(text) if text else None

    def _path(self, name: str, default: Path) -> Path:
        return Path(os.path.abspath(Path(self._text(name) or default).expanduser()))

    def _directory(self, name: str, default: Path) -> Path:
        """Return a directory by the path that a process in it has, where links are resolved."""
        return self._path(name, default).resolve()

    def _search_path(self) -> str:
        """Return PATH without relative directories, which jobs could choose the programs of."""
        entries = (self._text("PATH") or _SEARCH_PATH).split(":")
        return ":".join(os.path.abspath(entry) for entry in entries if entry.startswith("/"))

    def _file(self, name: str) -> Path | None:
        if self._text(name) is None:
            return None
        path = self._path(name, Path())
        if not path.is_file():
            self._problems.append(f"{name} names {str(path)!r}, which is not a file.")
        return path

    def _mcp_servers(self, config: Path | None) -> tuple[McpServer, ...]:
        if config is None or not config.is_file():
            return ()
        try:
            return read_servers(config.read_text("utf-8"))
        except (OSError, ValueError):
            self._problems.append(
                f'MCP_CONFIG names {str(config)!r}, which is not of the form {{"mcpServers": '
                "{NAME: {...}}}."
            )
            return ()

    def _url(self, name: str, default: str) -> str:
        text = (self._text(name) or default).rstrip("/")
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            self._problems.append(f"{name} must be an http(s) address without a user name.")
        return text

    def _whole(self, name: str, default: int, low: int, high: int) -> int:
        return self._parse(name, lambda text: _whole_number(text, low, high), default)

    def _optional_whole(self, name: str, low: int, high: int) -> int | None:
        return self._parse(name, lambda text: _whole_number(text, low, high), None)

    def _minutes(self, name: str, default: int, high: int) -> timedelta:
        return timedelta(minutes=self._whole(name, default, 1, high))

    def _optional_minutes(self, name: str, high: int) -> timedelta | None:
        minutes = self._optional_whole(name, 1, high)
        return None if minutes is None else timedelta(minutes=minutes)

    def _dollars(self, name: str) -> float | None:
        return self._parse(name, _dollars, None)

    def _one_of(self, name: str, words: type[E], default: E) -> E:
        allowed = " or ".join(word.value for word in words)

        def read(text: str) -> E:
            try:
                return words(text.lower())
            except ValueError:
                raise ValueError(f"it must be {allowed}") from None

        return self._parse(name, read, default)

    def _host_rules(self) -> tuple[HostRule, ...]:
        rules = []
        for entry in self._names("SANDBOX_HOSTS"):
            try:
                rules.append(HostRule.parse(entry))
            except ValueError as error:
                self._problems.append(str(error))
        return tuple(rules)

    def _paths(self, name: str) -> tuple[Path, ...]:
        paths = tuple(Path(entry) for entry in (self._text(name) or "").split(":") if entry)
        wrong = [str(path) for path in paths if not path.is_absolute() or not path.exists()]
        if wrong:
            self._problems.append(f"{name} has {', '.join(wrong)}: use absolute paths that exist.")
        return paths

    def _gibibytes(self, name: str, default: int) -> int:
        return self._whole(name, default, 1, 100_000) << 30

    def _sandbox_limits(self) -> Limits:
        return Limits(
            processes=self._whole("SANDBOX_PROCESSES", 4096, 16, 1_000_000),
            file_bytes=self._gibibytes("SANDBOX_FILE_GB", 8),
            memory_bytes=self._gibibytes("SANDBOX_MEMORY_GB", 8),
            free_bytes=self._gibibytes("SANDBOX_MIN_FREE_GB", 1),
        )

    def _flag(self, name: str) -> bool:
        return bool(self._parse(name, _flag, default=False))

    def _names(self, name: str) -> tuple[str, ...]:
        parts = [part.strip() for part in (self._text(name) or "").split(",")]
        return tuple(dict.fromkeys(filter(None, parts)))

    def _hosts(self, name: str) -> tuple[HttpHost, ...]:
        hosts = {text: parse_http_host(text) for text in self._names(name)}
        wrong = [text for text, host in hosts.items() if host is None]
        if wrong:
            self._problems.append(
                f"{name} has {', '.join(map(repr, wrong))}: give host names or IP addresses, each "
                "with or without a port, such as api.example.com or [2001:db8::1]:8443."
            )
        return tuple(host for host in hosts.values() if host is not None)

    def _parse(self, name: str, parse: Callable[[str], V], default: T) -> V | T:
        text = self._text(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self._problems.append(f"{name} is {text!r}: {error}.")
            return default

    def _host_id(self) -> str:
        text = self._text("HOST_ID") or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:63]
        if not _HOST_ID.fullmatch(text):
            self._problems.append(
                f"HOST_ID is {text!r}: use at most 63 letters, digits, dots, dashes, underscores."
            )
        return text

    def _tools(self) -> tuple[str, ...]:
        allowed = {"WebSearch", "WebFetch"}
        tools = self._names("TASK_TOOLS")
        unknown = sorted(set(tools) - allowed)
        if unknown:
            self._problems.append(
                f"TASK_TOOLS has {', '.join(unknown)}: only WebSearch and WebFetch can be added."
            )
        return tools

    def _supabase(self) -> tuple[str | None, Secret | None]:
        url = self._url("SUPABASE_URL", "") if self._text("SUPABASE_URL") else None
        key = self._secret("SUPABASE_SERVICE_ROLE_KEY")
        if (url is None) != (key is None):
            missing = "SUPABASE_URL" if url is None else "SUPABASE_SERVICE_ROLE_KEY"
            self._problems.append(
                f"{missing} is missing: set both to use Supabase, or neither to use SQLite."
            )
        return url, key


def _secret_in(path: str) -> str:
    """Return the text of a file without the end of its last line.

    Raises:
        ValueError: it cannot be a secret; the message says why.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({os.strerror(error.errno or 0)})") from None
    if len(content) > _MAX_SECRET_BYTES:
        raise ValueError(f"has over {_MAX_SECRET_BYTES // 1024} KiB, too much for a secret")
    try:
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("is not a text") from None
    if not text.strip():
        raise ValueError("is empty")
    return text


def _whole_number(text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or not low <= int(text) <= high:
        raise ValueError(f"it must be a whole number from {low} to {high}")
    return int(text)


def _dollars(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) <= 0:
        raise ValueError("it must be an amount of US dollars above 0, such as 5 or 0.50")
    return float(text)


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("it must be true or false")
    return text.lower() == "true"


def current_environment() -> dict[str, str]:
    """Return the whole environment, for processes of our own that read their settings from it."""
    return dict(os.environ)
