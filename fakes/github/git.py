"""Run git for the fake GitHub with one executable and an explicit environment."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_CONFIGURATION: Mapping[str, str] = {
    "safe.directory": "*",
    # A background gc would outlive the request and lock the repository for the next one.
    "gc.auto": "0",
    "maintenance.auto": "false",
}


@functools.cache
def git_program() -> str:
    """Return the path of the git executable."""
    program = shutil.which("git")
    if program is None:
        raise RuntimeError("The git executable is not on PATH. Install git, then try again.")
    return program


def git_environment(
    configuration: Mapping[str, str] | None = None, variables: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the complete environment of a git process.

    Args:
        configuration: additional git settings.
        variables: additional environment variables.
    """
    settings = {**_CONFIGURATION, **(configuration or {})}
    environment = {
        "PATH": os.pathsep.join([os.path.dirname(git_program()), os.defpath]),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
        **(variables or {}),
    }
    for index, (key, value) in enumerate(settings.items()):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    return environment


def git(directory: Path, *arguments: str, data: bytes = b"") -> bytes:
    """Run git on a bare repository and return its standard output.

    Args:
        directory: the bare repository.
        arguments: the command and its arguments.
        data: its standard input.

    Raises:
        RuntimeError: git failed. The message has its standard error.
    """
    ended = subprocess.run(
        [git_program(), f"--git-dir={directory}", *arguments],
        input=data,
        capture_output=True,
        check=False,
        env=git_environment(),
    )
    if ended.returncode != 0:
        reason = ended.stderr.decode("utf-8", "replace").strip()
        raise RuntimeError(f"`git {arguments[0]}` failed in the fake GitHub: {reason}")
    return ended.stdout
