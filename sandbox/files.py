"""Files that a job could have written, opened without being led astray.

A job may leave a link, a FIFO, a device or a file of any size in the place of every file it could
write. The walk starts at a directory that no job can replace, follows no link below it, never waits
for a FIFO, and reads regular files only, up to a limit. All functions block: call them in a thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 20


class UnsafeFile(Exception):
    """A path leads to something else than a regular file of an acceptable size."""


@contextlib.contextmanager
def opened(root: Path, name: str, *, limit: int) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Args:
        root: a directory that jobs can write into and not replace.
        name: of the file, relative to `root`.
        limit: the most bytes that it may have.

    Raises:
        FileNotFoundError: there is nothing at this path.
        UnsafeFile: there is something else, or it is too long.
    """
    with _parent(root, name) as (directory, last):
        descriptor = _open(directory, last, os.O_RDONLY | os.O_NONBLOCK, Path(root, name))
    try:
        # Before Python has it, which refuses a directory in its own way.
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{Path(root, name)} is not a regular file.")
        if found.st_size > limit:
            raise UnsafeFile(f"{Path(root, name)} has {found.st_size} bytes, over {limit}.")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read(root: Path, name: str, *, limit: int) -> bytes:
    """Return the content of a regular file; as `opened`.

    Raises:
        FileNotFoundError: there is nothing at this path.
        UnsafeFile: there is something else, or it is too long.
    """
    with opened(root, name, limit=limit) as file:
        # It may grow while it is read.
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UnsafeFile(f"{Path(root, name)} has over {limit} bytes.")
    return content


def read_text(root: Path, name: str, *, limit: int) -> str | None:
    """Return the text of a regular file; None when there is none, or something else.

    Bytes that are not UTF-8 come back as surrogates (`surrogateescape`).
    """
    try:
        return read(root, name, limit=limit).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, UnsafeFile):
        return None


def copy(root: Path, name: str, target: Path, *, limit: int) -> None:
    """Copy a regular file and its times to `target`, a new file that jobs cannot reach.

    Raises:
        FileNotFoundError: there is nothing at this path.
        UnsafeFile: there is something else, or it is too long.
    """
    with opened(root, name, limit=limit) as source, target.open("xb") as sink:
        shutil.copyfileobj(source, sink, _CHUNK)
        found = os.fstat(source.fileno())
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def write(root: Path, name: str, content: bytes, *, mode: int = 0o600) -> None:
    """Put a file in the place of whatever is at a path, in one step. Idempotent.

    Its directories are made where they are missing. A directory in its place is deleted first.

    Raises:
        UnsafeFile: a link or a file is in the place of one of its directories, or a directory in
            its own place cannot be deleted.
    """
    with _parent(root, name, make=True) as (directory, last):
        draft = f".{last[:100]}-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, mode, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            _remove(directory, last, directories_only=True)
            os.rename(draft, last, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=directory)
            raise


def remove(root: Path, name: str) -> None:
    """Delete whatever is at a path, links not followed; nothing being there is fine.

    A directory stays that cannot be deleted, for example because it is nested too deep.
    """
    with contextlib.suppress(FileNotFoundError, UnsafeFile):
        with _parent(root, name) as (directory, last):
            _remove(directory, last)


def names(root: Path, name: str = ".") -> list[str]:
    """List a directory; empty when there is none, or a link in its place."""
    try:
        with _directory(root, Path(name).parts, make=False) as directory:
            return sorted(os.listdir(directory))
    except (FileNotFoundError, UnsafeFile):
        return []


def below(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """List all that is in a directory that nobody changes now, as deep as a path can lead.

    Links are listed and not followed. An entry may be removed as soon as it was handed out.

    Yields:
        The path from `root`, and the entry; only its type can be asked for without a further look.
    """
    top = os.open(root, _DIRECTORY)
    try:
        pending = ["."]
        while pending:
            name = pending.pop()
            for entry in _entries(top, name):
                path = entry.name if name == "." else f"{name}/{entry.name}"
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
    finally:
        os.close(top)


def is_directory(root: Path, name: str) -> bool:
    """Return whether a directory, and no link to one, is at a path."""
    mode = _mode(root, name)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(root: Path, name: str) -> bool:
    """Return whether a regular file, and no link to one, is at a path."""
    mode = _mode(root, name)
    return mode is not None and stat.S_ISREG(mode)


def modified_at(root: Path, name: str) -> int:
    """Return when what is at a path was last changed, in nanoseconds; 0 where nothing is."""
    found = _status(root, name)
    return 0 if found is None else found.st_mtime_ns


def _entries(top: int, name: str) -> Iterator[os.DirEntry[str]]:
    """List a directory, or nothing where it cannot be opened: git cannot do so either."""
    try:
        directory = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    except OSError:
        return
    try:
        with os.scandir(directory) as found:
            yield from found
    finally:
        os.close(directory)


def _mode(root: Path, name: str) -> int | None:
    found = _status(root, name)
    return None if found is None else found.st_mode


def _status(root: Path, name: str) -> os.stat_result | None:
    try:
        with _parent(root, name) as (directory, last):
            return os.stat(last, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, UnsafeFile):
        return None


@contextlib.contextmanager
def _parent(root: Path, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the directory that a path is in; yields its descriptor and the last part."""
    *parents, last = Path(name).parts
    with _directory(root, tuple(parents), make=make) as directory:
        yield directory, last


@contextlib.contextmanager
def _directory(root: Path, parts: tuple[str, ...], *, make: bool) -> Iterator[int]:
    if ".." in parts or any(part.startswith("/") for part in parts):
        raise UnsafeFile(f"{'/'.join(parts)} leads out of {root}.")
    descriptor = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=descriptor)
            inner = _open(descriptor, part, _DIRECTORY, Path(root, *parts))
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _open(directory: int, name: str, flags: int, path: Path) -> int:
    """Open one name without following a link; anything that is not openable is unsafe."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnsafeFile(f"{path} cannot be opened: {error.strerror}.") from error


def _remove(directory: int, name: str, *, directories_only: bool = False) -> None:
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        try:
            shutil.rmtree(name, dir_fd=directory)
        except (OSError, RecursionError) as error:
            raise UnsafeFile(f"The directory {name} cannot be deleted: {error}.") from error
    elif not directories_only:
        os.unlink(name, dir_fd=directory)
