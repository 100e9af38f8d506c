"""Safe access to files that a job could have written.

A job can replace any file it can write with a link, a FIFO, a device or a file of any size. It can
also remove permissions from its directories. Each function starts at a directory that no job can
replace, follows no links below it, never waits for a FIFO, and reads only regular files. Names have
no length limit, because the walk opens one directory at a time.

A hard link to another job's file is read like any file: a job that can create the link can read the
file anyway. `write` replaces the name, so it never writes through a hard link.

All functions block: call them in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

MAX_NAMES = 1_000_000
"""Maximum number of entries that `names` returns; they take about 100 MB."""

REMOVAL_SECONDS = 600.0
"""Default time limit of `remove` for one path, far above the seconds that a real tree takes."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_CHUNK = 1 << 20

# Errors of open(2) when a job has replaced a file or directory: by a link (ELOOP, or ENOTDIR for a
# directory), a socket (ENXIO) or a device without a driver (ENODEV).
_MISPLACED = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG})
# Errors of open(2) when a job has removed permissions, or holds a lease (fcntl(2)) on the file.
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EWOULDBLOCK})


class UnsafeFile(OSError):
    """A path does not lead to a regular file of an acceptable size."""


@contextlib.contextmanager
def opened(root: Path, name: str, *, limit: int | None = None) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Args:
        root: a directory that jobs can write into and not replace.
        name: path of the file, relative to `root`.
        limit: maximum size in bytes when it is opened. It can grow while it is read.

    Raises:
        FileNotFoundError: the path does not exist.
        UnsafeFile: it is not a regular file, or it is too large.
    """
    parents, last = _split(name)
    with _directory(root, parents) as directory:
        descriptor = _open(last, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{name!r} is not a regular file.")
        if limit is not None and found.st_size > limit:
            raise _too_long(name, limit)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read(root: Path, name: str, *, limit: int) -> bytes:
    """Return the content of a regular file; arguments and errors as for `opened`."""
    with opened(root, name, limit=limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise _too_long(name, limit)
    return content


def read_text(root: Path, name: str, *, limit: int) -> str | None:
    """Return the text of a regular file, or None if there is no regular file.

    Invalid UTF-8 is decoded with `surrogateescape`.
    """
    try:
        return read(root, name, limit=limit).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, UnsafeFile):
        return None


def copy(root: Path, name: str, target: Path, *, limit: int) -> None:
    """Copy a regular file and its times to the new file `target`, which no job can write.

    `target` is deleted if the copy fails. Arguments and errors as for `opened`.

    Raises:
        FileExistsError: `target` exists.
    """
    with opened(root, name, limit=limit) as source, target.open("xb") as sink:
        try:
            copied = 0
            while chunk := source.read(_CHUNK):
                copied += len(chunk)
                if copied > limit:
                    raise _too_long(name, limit)
                sink.write(chunk)
            found = os.fstat(source.fileno())
        except BaseException:
            target.unlink()
            raise
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def write(
    root: Path, name: str, content: bytes, *, mode: int = 0o600, durable: bool = False
) -> None:
    """Atomically write a file, replacing any entry at the path. Idempotent.

    Missing directories are created, and read-only ones are made writable. A directory at the path
    itself is deleted first.

    Args:
        root: a directory that jobs can write into and not replace.
        name: of the file, relative to `root`.
        content: of the file.
        mode: the permissions, less the umask.
        durable: whether the file survives a power cut after the return.

    Raises:
        UnsafeFile: one of the parent directories is a link or a file.
    """
    parents, last = _split(name)
    with _directory(root, parents, change=True, make=True) as directory:
        draft = f".{secrets.token_hex(16)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(draft, flags, mode, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(descriptor)
            if _is_directory(directory, last):
                _remove_tree(directory, last, time.monotonic() + REMOVAL_SECONDS)
            os.rename(draft, last, src_dir_fd=directory, dst_dir_fd=directory)
            if durable:
                os.fsync(directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=directory)
            raise


def make_directory(root: Path, name: str) -> None:
    """Create a directory and its parents, with all permissions for the owner. Idempotent.

    A link or file in the place of one of them is deleted.
    """
    with _directory(root, _parts(name), change=True, make=True, replace=True):
        pass


def remove(root: Path, name: str, *, seconds: float = REMOVAL_SECONDS) -> None:
    """Delete a file or tree, without following links. Idempotent.

    Read-only directories are deleted too, at any depth. If an entry cannot be deleted, the others
    still are.

    Args:
        root: a directory that jobs can write into and not replace.
        name: path to delete, relative to `root`.
        seconds: time limit; a process can add files as fast as they are deleted.

    Raises:
        OSError: not everything was deleted. TimeoutError if the time limit was reached.
    """
    deadline = time.monotonic() + seconds
    parents, last = _split(name)
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(_directory(root, parents, change=True))
        except (FileNotFoundError, UnsafeFile):
            return
        if _is_directory(directory, last):
            _remove_tree(directory, last, deadline)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(last, dir_fd=directory)


def names(root: Path, name: str = ".") -> list[str]:
    """List the entries of a directory, sorted. Empty if the path is not a directory.

    Raises:
        UnsafeFile: it has more than `MAX_NAMES` entries.
    """
    try:
        with _directory(root, _parts(name)) as directory, os.scandir(directory) as entries:
            found = [entry.name for entry in itertools.islice(entries, MAX_NAMES + 1)]
    except (FileNotFoundError, UnsafeFile):
        return []
    if len(found) > MAX_NAMES:
        raise UnsafeFile(f"{name!r} has over {MAX_NAMES} entries.")
    return sorted(found)


def below(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """List a directory recursively. No process may change the tree during the call.

    Links are listed and not followed. The caller may remove an entry once it is yielded.

    Yields:
        The path relative to `root`, and the entry. Only the type of the entry is known without
        another system call.
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
    """Return whether the path is a directory, and not a link to one."""
    found = _status(root, name)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_file(root: Path, name: str) -> bool:
    """Return whether the path is a regular file, and not a link to one."""
    found = _status(root, name)
    return found is not None and stat.S_ISREG(found.st_mode)


def _entries(top: int, name: str) -> Iterator[os.DirEntry[str]]:
    """List a directory. Empty if it cannot be opened: git cannot open it either."""
    try:
        directory = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    except OSError:
        return
    try:
        with os.scandir(directory) as found:
            yield from found
    finally:
        os.close(directory)


def _status(root: Path, name: str) -> os.stat_result | None:
    try:
        parents, last = _split(name)
        with _directory(root, parents) as directory, _unsafe_if_misplaced(last):
            return os.stat(last, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, UnsafeFile):
        return None


def _parts(name: str) -> tuple[str, ...]:
    """Split a name at its slashes; `.` has no parts.

    Raises:
        UnsafeFile: the name could lead out of its base directory.
    """
    parts = Path(name).parts
    if os.path.isabs(name) or ".." in parts or "\0" in name:
        raise UnsafeFile(f"{name!r} is not relative to a directory and below it.")
    return parts


def _split(name: str) -> tuple[tuple[str, ...], str]:
    parts = _parts(name)
    if not parts:
        raise UnsafeFile(f"{name!r} is not the name of a file.")
    return parts[:-1], parts[-1]


@contextlib.contextmanager
def _directory(
    root: Path,
    parts: tuple[str, ...],
    *,
    change: bool = False,
    make: bool = False,
    replace: bool = False,
) -> Iterator[int]:
    """Open a directory below `root` and yield its descriptor.

    Args:
        root: the directory to start at; links in its own path are followed.
        parts: the directory names from there.
        change: whether to give the owner all permissions on each directory.
        make: whether to create missing directories.
        replace: whether to delete entries that are not directories.
    """
    descriptor = _open_root(root, change=change)
    try:
        for part in parts:
            if replace and not _is_directory(descriptor, part):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=descriptor)
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=descriptor)
            inner = _enter(part, descriptor) if change else _open(part, _DIRECTORY, descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _open_root(root: Path, *, change: bool) -> int:
    if change:
        with _made_accessible(root) as handle:
            return os.open(".", _DIRECTORY, dir_fd=handle)
    with _unsafe_if_misplaced(root):
        return os.open(root, _DIRECTORY)


def _open(name: str, flags: int, directory: int) -> int:
    """Open an entry of a directory, unless it is a link."""
    with _unsafe_if_misplaced(name):
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)


def _enter(name: str, directory: int) -> int:
    """Open a subdirectory after giving the owner all permissions on it.

    Raises:
        PermissionError: it belongs to another user.
    """
    with _unsafe_if_misplaced(name, _MISPLACED), _made_accessible(name, directory) as handle:
        return os.open(".", _DIRECTORY, dir_fd=handle)


@contextlib.contextmanager
def _made_accessible(path: str | Path, directory: int | None = None) -> Iterator[int]:
    """Give the owner all permissions on a directory, and yield an O_PATH descriptor of it.

    A link is followed only if `directory` is None.
    """
    links = 0 if directory is None else os.O_NOFOLLOW
    # O_PATH needs no permission on the directory itself.
    handle = os.open(path, os.O_PATH | os.O_DIRECTORY | links, dir_fd=directory)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            _change_mode(handle, mode | stat.S_IRWXU, path)
        yield handle
    finally:
        os.close(handle)


def _change_mode(handle: int, mode: int, path: str | Path) -> None:
    try:
        # fchmod(2) refuses an O_PATH descriptor; this path leads to the same directory.
        os.chmod(f"/proc/self/fd/{handle}", mode)
    except PermissionError as error:
        raise PermissionError(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def _unsafe_if_misplaced(
    name: str | Path, errors: frozenset[int] = _MISPLACED | _CLOSED
) -> Iterator[None]:
    """Raise UnsafeFile for errors that a job could have caused. Other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in errors:
            raise UnsafeFile(f"{str(name)!r} cannot be opened: {error.strerror}.") from error
        raise


def _too_long(name: str, limit: int) -> UnsafeFile:
    return UnsafeFile(f"{name!r} has over {limit} bytes.")


def _is_directory(directory: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove_tree(directory: int, name: str, deadline: float) -> None:
    top = _enter(name, directory)
    try:
        _Removal(top, deadline).run()
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=directory)


class _Removal:
    """Delete the contents of one directory.

    Nested directories are first moved up into the top directory. So any depth needs only three
    descriptors, no recursion, and no path of more than one name.
    """

    def __init__(self, top: int, deadline: float) -> None:
        self._top = top
        self._deadline = deadline
        self._deleted = 0
        self._failure: OSError | None = None

    def run(self) -> None:
        """Delete until the directory is empty, or no more entries can be deleted.

        Raises:
            OSError: the first error, if an entry is left.
        """
        while True:
            self._deleted, self._failure = 0, None
            self._clear(self._top, self._remove_subdirectory)
            if not self._deleted:
                break
        if self._failure is not None:
            raise self._failure

    def _clear(self, directory: int, on_directory: Callable[[int, str], None]) -> None:
        """Delete the files of a directory, and call `on_directory` for its directories."""
        with os.scandir(directory) as entries:
            for entry in entries:
                if time.monotonic() > self._deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "There was no time to delete all files")
                try:
                    if entry.is_dir(follow_symlinks=False):
                        on_directory(directory, entry.name)
                    else:
                        os.unlink(entry.name, dir_fd=directory)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._failure = self._failure or error
                else:
                    self._deleted += 1

    def _remove_subdirectory(self, top: int, name: str) -> None:
        """Empty a directory into `top`, then delete it."""
        directory = _enter(name, top)
        try:
            self._clear(directory, self._move_to_top)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)

    def _move_to_top(self, directory: int, name: str) -> None:
        # Moving a directory needs the permission to write into it.
        with _made_accessible(name, directory):
            os.rename(name, secrets.token_hex(16), src_dir_fd=directory, dst_dir_fd=self._top)
