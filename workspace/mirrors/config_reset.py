"""Reset the configuration of a mirror before every fetch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from sandbox import files

_TEMPLATE = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\thooksPath = /dev/null
[remote "origin"]
\turl = "{url}"
\tfetch = +refs/heads/*:refs/remotes/origin/*
\ttagOpt = --no-tags
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""
# These files change the behaviour of git too (gitrepository-layout(5)).
_UNWANTED = (
    "hooks", "info/attributes", "info/exclude", "info/grafts", "objects/info/alternates", "shallow",
)  # fmt: skip
_MAX_CONFIG = 64 * 1024
# Git holds the lock of a ref for milliseconds, and for seconds while it packs all refs. It writes
# an object without pauses, but can compute for minutes between two writes to a pack.
_STALE_SECONDS = 60.0
_STALE_PACK_SECONDS = 3600.0


def reset_config(mirror: Path, url: str) -> None:
    """Rewrite the configuration of a mirror, and delete other files that change git's behaviour.

    With SANDBOX=off, every job can write into the mirror.

    Args:
        mirror: the bare repository.
        url: the remote.
    """
    wanted = _TEMPLATE.format(url=url.replace("\\", "\\\\").replace('"', '\\"'))
    if files.read_text(mirror, "config", limit=_MAX_CONFIG) != wanted:
        files.write(mirror, "config", wanted.encode(), mode=0o644)
    for name in _UNWANTED:
        files.remove(mirror, name)


def remove_leftovers(mirror: Path) -> None:
    """Delete locks and partial objects of git processes that were killed or had no disk space.

    Call it while holding the mirror's lock, so that only commands that write objects are running.
    """
    _delete_older(_lock_files(mirror), _STALE_SECONDS)
    _delete_older(mirror.glob("objects/??/tmp_obj_*"), _STALE_SECONDS)
    _delete_older(mirror.glob("objects/pack/tmp_*"), _STALE_PACK_SECONDS)


def _delete_older(paths: Iterable[Path], seconds: float) -> None:
    limit = time.time() - seconds
    for file in paths:
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mtime < limit:
                file.unlink()


def _lock_files(mirror: Path) -> Iterator[Path]:
    yield from mirror.glob("*.lock")
    for directory, _, names in os.walk(mirror / "refs"):
        yield from (Path(directory, name) for name in names if name.endswith(".lock"))
