"""Checks that the sandbox isolates jobs on this host, by attempts from inside."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.process.child import SupervisedChild
from commands.doctor.finding import Finding
from commands.doctor.inside import Inside, last_words
from commands.doctor.mcp_servers import mcp_servers
from commands.doctor.programs import programs
from domain.configuration.isolation import SandboxMode
from domain.errors import JobFailure
from sandbox import landlock
from sandbox.bubblewrap import Bubblewrap
from sandbox.containment import Containment
from sandbox.gateway import PORT
from sandbox.modes import Sandbox, version_of
from sandbox.supervision.limits import INTERVAL, Limits
from settings import Settings
from wiring import mcp_addresses, sandbox_limits

_LISTEN_SECONDS = 10.0
"""Time limit for starting one sandbox, which takes 10 ms (measured)."""

_MAX_PROCESSES = 5
"""The two processes of bwrap, the shell and its children."""

_OFF = (
    "SANDBOX=off: jobs run as this user. They can read every file and secret of the worker and "
    "change the work of other jobs. Set SANDBOX=on."
)
_LANDLOCK_ONLY = (
    "SANDBOX=landlock protects the files and processes of others. It does not protect the network, "
    "services on loopback (such as Temporal) or the host's memory. Set SANDBOX=on if possible."
)
_HOST_NETWORK = (
    "SANDBOX_NETWORK=host: jobs reach every address that this host reaches, including services on "
    "loopback (such as Temporal). Set it to internet, hosts or none."
)
_ROOT = (
    "The orchestrator runs as root. A job that escapes the sandbox would control the whole host, "
    "and process limits do not apply to root. Run the orchestrator as another user."
)
_REPORT = (
    "Run no jobs on this host. Report the problem with the output of `uname -a`, as described in "
    "docs/security.md."
)


async def isolation(settings: Settings, sandbox: Sandbox) -> list[Finding]:
    """Check the sandbox, and the programs and MCP servers inside it."""
    found = [_memory(sandbox_limits(settings))]
    if os.geteuid() == 0:
        found.append(Finding("user", problem=_ROOT, is_fatal=False))
    try:
        containment = await sandbox.require()
        found += _mode(sandbox.mode, containment)
        if sandbox.mode is SandboxMode.OFF:
            return found
        with tempfile.TemporaryDirectory(dir=settings.host.data_dir, prefix=".doctor-") as name:
            inside = Inside(
                containment, settings.host.search_path, Path(name), settings.claude.mcp_files
            )
            found += await asyncio.to_thread(lambda: [*_attempts(inside)])
            if containment.has_own_network:
                found.append(await _listening(settings, inside))
            found += await asyncio.to_thread(lambda: [*programs(settings, inside)])
            found += await asyncio.to_thread(lambda: [*mcp_servers(settings, inside)])
    except JobFailure as failure:
        found.append(Finding("sandbox", problem=failure.message))
    return found


def _mode(mode: SandboxMode, containment: Containment) -> Iterator[Finding]:
    if mode is SandboxMode.OFF:
        yield Finding("sandbox", problem=_OFF, is_fatal=False)
    elif mode is SandboxMode.LANDLOCK:
        yield Finding("sandbox", f"Landlock, ABI {landlock.available()}")
        yield Finding("sandbox", problem=_LANDLOCK_ONLY, is_fatal=False)
    elif isinstance(containment, Bubblewrap):
        version = ".".join(map(str, version_of(str(containment.program))))
        yield Finding("sandbox", f"bubblewrap {version} ({containment.program})")
        if not containment.has_own_network:
            yield Finding("sandbox", problem=_HOST_NETWORK, is_fatal=False)


def _memory(limits: Limits) -> Finding:
    limit = (limits.memory_bytes or 0) >> 30
    state = f"a job that uses more than {limit} GiB is stopped (checked every {INTERVAL} s)"
    return Finding("memory", state)


def _attempts(inside: Inside) -> Iterator[Finding]:
    is_bubblewrap = isinstance(inside.containment, Bubblewrap)
    yield Finding(
        "sandbox", "namespaces can be created" if is_bubblewrap else "commands run inside"
    )
    if is_bubblewrap:
        yield _processes(inside)
    yield _kernel(inside)
    if inside.containment.has_own_network:
        yield _network(inside)
    yield _git(inside)


def _processes(inside: Inside) -> Finding:
    count = inside.shell("set -- /proc/[0-9]*; echo $#").stdout.strip()
    if count.isdigit() and int(count) <= _MAX_PROCESSES:
        return Finding("sandbox", "jobs have their own /proc, without other processes")
    return Finding("sandbox", problem=f"Jobs see {count or 'no'} processes in /proc. {_REPORT}")


def _kernel(inside: Inside) -> Finding:
    if inside.shell(": >> /proc/sys/kernel/core_pattern").returncode != 0:
        return Finding("sandbox", "jobs cannot write kernel settings")
    problem = "Jobs can write /proc/sys/kernel/core_pattern, and so become root on this host."
    return Finding("sandbox", problem=f"{problem} Run the orchestrator as another user.")


def _network(inside: Inside) -> Finding:
    rows = inside.run("/bin/cat", "/proc/net/dev").stdout.splitlines()[2:]
    names = {row.partition(":")[0].strip() for row in rows}
    if names == {"lo"}:
        return Finding("sandbox", "jobs have no network interface except their own loopback")
    problem = f"Jobs have these network interfaces: {', '.join(sorted(names)) or 'unknown'}."
    return Finding("sandbox", problem=f"{problem} {_REPORT}")


def _git(inside: Inside) -> Finding:
    script = (
        "git init -q r && cd r && echo x > f && git add f && "
        "git -c user.name=x -c user.email=x@example.invalid commit -q -m x"
    )
    ended = inside.shell(script)
    if ended.returncode == 0:
        return Finding("sandbox", "git can commit inside")
    return Finding("sandbox", problem=f"git cannot commit inside: {last_words(ended)}.")


async def _listening(settings: Settings, inside: Inside) -> Finding:
    """Let the supervisor open sockets inside, as it does for each process of a job."""
    ports = [PORT, *mcp_addresses(settings)[0]]
    child = SupervisedChild.start(
        lambda _: inside.containment.supervised(
            ["/bin/sh", "-c", "read -r line"], inside.reach, ports, sandbox_limits(settings)
        ),
        "",
        inside.environment,
        inside.directory,
    )
    try:
        async with asyncio.timeout(_LISTEN_SECONDS):
            sockets = await child.control.listening()
    except TimeoutError:
        sockets = []
    finally:
        child.control.ask_to_stop(1.0)
        for pipe in child.pipes:
            pipe.close()
        await child.ended()
    for each in sockets:
        each.close()
    if len(sockets) == len(ports):
        return Finding("sandbox", "the proxy can listen inside")
    problem = "No socket can listen inside, so jobs cannot reach the model or the network."
    return Finding("sandbox", problem=f"{problem} {_REPORT}")
