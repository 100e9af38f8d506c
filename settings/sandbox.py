"""Settings of the sandbox of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from domain.configuration.isolation import HostRule, Network, SandboxMode
from settings.fields import Group, gibibytes, names, one_of, parsed, setting, whole_number


def _host_rules(text: str) -> tuple[HostRule, ...]:
    rules, problems = [], []
    for entry in names(text):
        try:
            rules.append(HostRule.parse(entry))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("has wrong entries. " + " ".join(problems))
    return tuple(rules)


def _existing_paths(text: str) -> tuple[Path, ...]:
    paths = tuple(Path(entry) for entry in text.split(":") if entry)
    wrong = [str(path) for path in paths if not path.is_absolute() or not path.exists()]
    if wrong:
        raise ValueError(f"has {', '.join(wrong)}. Use absolute paths that exist.")
    return paths


class SandboxSettings(Group):
    """The isolation of jobs, and their limits. Sizes are in bytes."""

    title = "The sandbox of jobs"

    mode: Annotated[SandboxMode, one_of(SandboxMode)] = setting(
        "SANDBOX", "on", "Isolation of jobs: `on` (bubblewrap), `landlock` or `off`"
    )
    network: Annotated[Network, one_of(Network)] = setting(
        "SANDBOX_NETWORK",
        "internet",
        "Network of jobs: `internet`, `hosts`, `none` (only the model and MCP servers) or `host`",
    )
    hosts: Annotated[tuple[HostRule, ...], parsed(_host_rules)] = setting(
        "SANDBOX_HOSTS",
        "",
        "For `hosts`: `example.com`, `example.com:8443` or `*.example.com`, separated by commas",
    )
    read: Annotated[tuple[Path, ...], parsed(_existing_paths)] = setting(
        "SANDBOX_READ",
        "",
        "Further files and directories that jobs may read, separated by colons",
    )
    processes: Annotated[int, whole_number(16, 1_000_000)] = setting(
        "SANDBOX_PROCESSES", "4096", "Maximum of processes and threads of a job"
    )
    file_bytes: Annotated[int, gibibytes()] = setting(
        "SANDBOX_FILE_GB", "8", "Maximum size of a file that a job writes, in GiB"
    )
    memory_bytes: Annotated[int, gibibytes()] = setting(
        "SANDBOX_MEMORY_GB", "8", "Memory above which a job is stopped, in GiB"
    )
    free_bytes: Annotated[int, gibibytes()] = setting(
        "SANDBOX_MIN_FREE_GB",
        "1",
        "Free disk space below which a job that writes is stopped, in GiB",
    )

    @property
    def network_in_effect(self) -> Network:
        """The network that jobs have: only SANDBOX=on gives them one of their own."""
        return self.network if self.mode is SandboxMode.ON else Network.HOST
