"""All groups of settings of a process, and the checks between them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from domain.configuration.claude_env import credential_identity
from domain.configuration.isolation import SYSTEM_TREES, SandboxMode
from settings.api import ApiSettings
from settings.claude import ClaudeSettings
from settings.environment import EnvironmentSource
from settings.host import HostSettings
from settings.jobs import JobSettings
from settings.problems import SettingsError
from settings.repositories import GithubSettings, GitSettings
from settings.sandbox import SandboxSettings
from settings.store import StoreSettings
from settings.temporal import TemporalSettings


class Settings(BaseSettings):
    """All settings, in groups that are handed to the parts of a process as they are."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    # Checks between groups need `host` first.
    host: HostSettings
    api: ApiSettings
    jobs: JobSettings
    store: StoreSettings
    github: GithubSettings
    git: GitSettings
    claude: ClaudeSettings
    sandbox: SandboxSettings
    temporal: TemporalSettings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing but the variables that `from_env` names."""
        return (EnvironmentSource(settings_cls, init_settings()["environ"]),)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check all settings.

        Args:
            environ: the variables; None for those of this process.

        Raises:
            SettingsError: names all problems at once.
        """
        given: dict[str, Any] = {"environ": os.environ if environ is None else environ}
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError.of(error) from None

    @property
    def hides_credential(self) -> bool:
        """Whether only the proxy has Claude's credential, and jobs do not."""
        return self.sandbox.mode is not SandboxMode.OFF and self.claude.can_hide_credential

    @property
    def credential_id(self) -> str:
        """Fingerprint of Claude's credential. Hosts with the same credential have the same one.

        For the operator's login it identifies the host and the home directory.
        """
        text = f"login/{self.host.id}/{self.host.home}"
        if self.claude.has_credentials:
            identity = credential_identity(self.claude.environment)
            text = "\n".join(f"{name}={value}" for name, value in sorted(identity.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def require_for_production(self) -> None:
        """Check the variables that `orchestrator api` and `orchestrator worker` need.

        Raises:
            SettingsError: names all that are missing.
        """
        required = {
            "AGENT_API_SECRET": self.api.secret,
            "TEMPORAL_ADDRESS": self.temporal.address,
            "SUPABASE_URL": self.store.supabase_url,
            "SUPABASE_SERVICE_ROLE_KEY": self.store.supabase_key,
            "GITHUB_TOKEN": self.github.token,
        }
        missing = [name for name, value in required.items() if value is None]
        if missing:
            raise SettingsError(
                f"These required variables are not set: {', '.join(missing)}. Set them, or for a "
                "secret NAME_FILE (see .env.example). `orchestrator up` needs none of them."
            )

    @field_validator("claude")
    @classmethod
    def _check_mcp_files(cls, claude: ClaudeSettings, info: ValidationInfo) -> ClaudeSettings:
        _raise_together(_private_problems("MCP_CONFIG", claude.mcp_files, info.data.get("host")))
        return claude

    @field_validator("sandbox")
    @classmethod
    def _check_visible_files(
        cls, sandbox: SandboxSettings, info: ValidationInfo
    ) -> SandboxSettings:
        host = info.data.get("host")
        problems = _private_problems("SANDBOX_READ", sandbox.read, host)
        if host is not None and sandbox.mode is not SandboxMode.OFF:
            problems += [
                f"{name} is below {tree}, where jobs can read every file. Set it to a directory "
                "elsewhere."
                for name, path in host.own_directories.items()
                for tree in SYSTEM_TREES
                if path.is_relative_to(tree)
            ]
        _raise_together(problems)
        return sandbox


def _private_problems(name: str, paths: Iterable[Path], host: HostSettings | None) -> list[str]:
    if host is None:
        return []
    private = sorted({str(path) for path in paths if host.is_private(path)})
    if not private:
        return []
    return [
        f"{name} names {', '.join(private)}, which is or contains HOME, DATA_DIR, REPOS_DIR or "
        "WORKTREES_DIR. Jobs must not see those. Name only the files that jobs need."
    ]


def _raise_together(problems: list[str]) -> None:
    if problems:
        raise ValueError(" ".join(problems))
