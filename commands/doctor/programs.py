"""Checks that jobs see the directories of PATH and can run the usual programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from commands.doctor.finding import Finding
from commands.doctor.inside import Inside, last_words
from settings import Settings
from wiring import sandbox_search_path

_PROGRAMS = ("claude", "git", "git-lfs", "node", "npm", "python3")
_REMEDY = "Add the directories that it needs to SANDBOX_READ"


def programs(settings: Settings, inside: Inside) -> Iterator[Finding]:
    """Yield a finding for each directory or program that jobs cannot use. Blocks."""
    yield from _directories(settings, inside)
    found = {name: shutil.which(name, path=sandbox_search_path(settings)) for name in _PROGRAMS}
    works = []
    for name, path in found.items():
        if path is None:
            continue
        ended = inside.run(path, "--version")
        if ended.returncode == 0:
            works.append(name)
        elif inside.run_outside(path, "--version").returncode == 0:
            problem = f"{path} does not run in the sandbox ({last_words(ended)}). {_REMEDY}."
            yield Finding("PATH", problem=problem, is_fatal=False)
    yield Finding("PATH", f"jobs can run {', '.join(works) or 'none of the usual programs'}")


def _directories(settings: Settings, inside: Inside) -> Iterator[Finding]:
    seen = set(sandbox_search_path(settings).split(":"))
    for entry in settings.host.search_path.split(":"):
        if not os.path.isdir(entry):
            continue
        problem = None
        if entry not in seen:
            problem = (
                f"Jobs do not have {entry} on their PATH. If they need its programs, add to "
                "SANDBOX_READ this directory, or the parent with all their files, such as ~/.pyenv."
            )
        elif not _is_seen(entry, inside):
            problem = f"Jobs do not see {entry}. Add it to SANDBOX_READ, or remove it from PATH."
        if problem is not None:
            yield Finding("PATH", problem=problem, is_fatal=False)


def _is_seen(directory: str, inside: Inside) -> bool:
    """Return whether a file of the directory exists inside.

    The directory itself may exist only because another path leads through it.
    """
    try:
        name = min(os.listdir(directory), default="")
    except OSError:
        return True
    path = os.path.join(directory, name)
    return inside.shell('[ -e "$1" ] || [ -L "$1" ]', path).returncode == 0
