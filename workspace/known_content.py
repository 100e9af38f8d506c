"""The files of a mirror that git obeys, put back to what they must be before every use."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_TEMPLATE = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\thooksPath = /dev/null
{platform}[remote "origin"]
\turl = "{url}"
\tfetch = +refs/heads/*:refs/remotes/origin/*
\ttagOpt = --no-tags
[gc]
\tauto = 0
[maintenance]
\tauto = false
[submodule]
\tactive = .
{filters}"""
_MACOS = "\tignorecase = true\n\tprecomposeunicode = true\n"
# What `git lfs install --local` writes.
_LFS = """\
[filter "lfs"]
\tclean = git-lfs clean -- %f
\tsmudge = git-lfs smudge -- %f
\tprocess = git-lfs filter-process
\trequired = true
"""
# Each of these changes what git does without being configuration (gitrepository-layout(5)).
_UNWANTED = ("info/attributes", "info/exclude", "info/grafts", "objects/info/alternates", "shallow")
# git holds the lock of a ref for milliseconds; the longest, packing all refs, takes seconds.
_STALE_SECONDS = 60.0


def restore(mirror: Path, url: str, *, lfs: bool) -> None:
    """Put the configuration of a mirror back, and remove what else could change git's mind.

    Args:
        mirror: the bare repository.
        url: the remote.
        lfs: whether git-lfs is installed.
    """
    escaped = url.replace("\\", "\\\\").replace('"', '\\"')
    wanted = _TEMPLATE.format(
        url=escaped,
        platform=_MACOS if sys.platform == "darwin" else "",
        filters=_LFS if lfs else "",
    )
    config = mirror / "config"
    if config.is_symlink() or _read(config) != wanted:
        if not config.is_file():
            _remove(config)
        replacement = mirror / f"config.{os.getpid()}.{time.monotonic_ns()}"
        replacement.write_text(wanted, "utf-8")
        replacement.replace(config)
    for name in (*_UNWANTED, "hooks"):
        _remove(mirror / name)


def remove_stale_locks(mirror: Path) -> None:
    """Delete lock files of git processes that were killed.

    Call it while holding the mirror's lock: then only the short commands of running jobs can have
    younger ones.
    """
    limit = time.time() - _STALE_SECONDS
    for lock in _lock_files(mirror):
        try:
            if lock.stat().st_mtime < limit:
                lock.unlink()
        except FileNotFoundError:
            continue


def _lock_files(mirror: Path) -> Iterator[Path]:
    yield from mirror.glob("*.lock")
    for directory, _, names in os.walk(mirror / "refs"):
        yield from (Path(directory, name) for name in names if name.endswith(".lock"))


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
