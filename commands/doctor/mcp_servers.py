"""Checks that jobs can start or reach the servers of MCP_CONFIG."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from commands.doctor.finding import Finding
from commands.doctor.inside import Inside
from domain.configuration.mcp_servers import McpServer
from settings import Settings

_FORWARDED = ("127.0.0.1", "localhost")


def mcp_servers(settings: Settings, inside: Inside) -> Iterator[Finding]:
    """Yield a finding for each server. Blocks."""
    for server in settings.claude.mcp_servers:
        subject = f"MCP {server.name}"
        problem = _problem(server, inside)
        if problem is None:
            yield Finding(subject, _state(server))
        else:
            yield Finding(subject, problem=problem, is_fatal=False)


def _state(server: McpServer) -> str:
    if server.address is None:
        return "jobs can read its program and files"
    return "jobs may connect to {}:{} (not tested)".format(*server.address)


def _problem(server: McpServer, inside: Inside) -> str | None:
    if server.command:
        return _of_program(server.command[0], inside) or _of_files(server.files, inside)
    if server.url is None:
        return "It has neither a command nor a URL. Correct MCP_CONFIG."
    if server.address is None:
        return f"Jobs cannot reach {server.url!r}. Write its host and port without variables."
    own = server.is_on_loopback and inside.containment.has_own_network
    if own and server.address[0] not in _FORWARDED:
        return f"Jobs cannot reach {server.address[0]} on this host. Write 127.0.0.1 instead."
    return None


def _of_program(program: str, inside: Inside) -> str | None:
    path = shutil.which(program, path=inside.search_path)
    if path is None:
        return f"{program!r} is not a program on PATH. Install it, or write its absolute path."
    if not os.path.isabs(path):
        return f"{program!r} is a relative path. Write the absolute path."
    for needed in (path, _interpreter(path)):
        if needed and inside.shell('[ -x "$1" ]', needed).returncode != 0:
            return f"Jobs cannot run {needed}. Add its directory to SANDBOX_READ."
    return None


def _interpreter(path: str) -> str | None:
    """Return the interpreter in the first line of a script."""
    try:
        with open(path, "rb") as file:
            first = file.readline(256)
    except OSError:
        return None
    words = first[2:].split() if first.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else None


def _of_files(paths: tuple[Path, ...], inside: Inside) -> str | None:
    script = 'for path; do [ -r "$path" ] || printf "%s\\n" "$path"; done'
    for path in inside.shell(script, *map(str, paths)).stdout.splitlines():
        return f"Jobs cannot read {path}, which is part of its command. Correct the path."
    return None
