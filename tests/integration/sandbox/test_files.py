"""Safe access to files that a job could have written or replaced."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox import files
from sandbox.files import UnsafeFile

LIMIT = 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that a job can write into."""
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    """A directory of another job, with one file."""
    made = tmp_path / "neighbour"
    made.mkdir()
    (made / "file").write_bytes(b"the neighbour's")
    return made


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@contextlib.contextmanager
def repeating(action: Callable[[], object]) -> Iterator[None]:
    """Repeat an action in another thread, as a job's process could."""
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def as_ordinary_user(script: str, *arguments: Path) -> None:
    """Run a script as an unprivileged user: permissions do not apply to root."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    prefix = bound if os.geteuid() == 0 else []
    subprocess.run([*prefix, sys.executable, "-c", script, *arguments], check=True)


@contextlib.contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    """Limit the number of files that the process can still open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    null = os.open(os.devnull, os.O_RDONLY)
    taken = [null]
    resource.setrlimit(resource.RLIMIT_NOFILE, (null + 100, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(null))
        for descriptor in taken[len(taken) - number :]:
            os.close(descriptor)
        del taken[len(taken) - number :]
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


def nest(directory: Path, depth: int, name: str) -> str:
    """Create nested directories with a file in the last one; return its relative name."""
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    return "/".join([name] * depth + ["file"])


def test_a_regular_file_is_read(root: Path, tmp_path: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "file").write_bytes(b"x" * LIMIT)
    assert files.read(root, "a/./file", limit=LIMIT) == b"x" * LIMIT
    (root / "text").write_bytes(b"caf\xe9")
    assert files.read_text(root, "text", limit=LIMIT) == "caf\udce9"
    files.copy(root, "a/file", tmp_path / "copy", limit=LIMIT)
    assert (tmp_path / "copy").read_bytes() == b"x" * LIMIT


def test_missing_and_unsafe_files_have_different_errors(root: Path) -> None:
    for name in ("missing", "missing/file"):
        with pytest.raises(FileNotFoundError):
            files.read(root, name, limit=LIMIT)
        assert files.read_text(root, name, limit=LIMIT) is None
        files.remove(root, name)
    assert files.names(root, "missing") == []
    assert files.names(root / "missing") == []


def link(path: Path, neighbour: Path) -> None:
    path.symlink_to(neighbour / "file")


def link_to_nothing(path: Path, neighbour: Path) -> None:
    path.symlink_to(neighbour / "not-yet")


def link_to_itself(path: Path, neighbour: Path) -> None:
    path.symlink_to(path)


def fifo(path: Path, neighbour: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path, neighbour: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
        made.bind(path.name)


def directory(path: Path, neighbour: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


def sparse(path: Path, neighbour: Path) -> None:
    path.touch()
    os.truncate(path, 4 << 30)


@pytest.mark.parametrize(
    "attack", [link, link_to_nothing, link_to_itself, fifo, unix_socket, directory, sparse]
)
def test_only_regular_files_of_an_acceptable_size_are_read(
    root: Path, neighbour: Path, tmp_path: Path, attack: Callable[[Path, Path], None]
) -> None:
    attack(root / "file", neighbour)
    with pytest.raises(UnsafeFile):
        files.read(root, "file", limit=LIMIT)
    with pytest.raises(UnsafeFile), files.opened(root, "file", limit=LIMIT):
        pass
    with pytest.raises(UnsafeFile):
        files.copy(root, "file", tmp_path / "copy", limit=LIMIT)
    assert not (tmp_path / "copy").exists()
    assert files.read_text(root, "file", limit=LIMIT) is None
    assert files.is_file(root, "file") == (attack is sparse)
    assert files.is_directory(root, "file") == (attack is directory)

    for _ in range(2):
        files.write(root, "file", b"new")
        assert files.read(root, "file", limit=LIMIT) == b"new"
    assert (root / "file").stat().st_mode & 0o077 == 0
    assert files.names(root) == ["file"]
    (root / "file").unlink()

    attack(root / "file", neighbour)
    files.remove(root, "file")
    assert files.names(root) == []
    assert [path.name for path in neighbour.iterdir()] == ["file"]
    assert (neighbour / "file").read_bytes() == b"the neighbour's"


def test_a_device_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile, match="'zero' is not a regular file"):
        files.read(Path("/dev"), "zero", limit=LIMIT)


def test_a_file_that_grows_is_not_read_beyond_the_limit(tmp_path: Path) -> None:
    """The files of /proc have 0 bytes until they are read."""
    with pytest.raises(UnsafeFile, match="over 20 bytes"):
        files.read(Path("/proc/self"), "status", limit=20)
    with pytest.raises(UnsafeFile, match="over 20 bytes"):
        files.copy(Path("/proc/self"), "status", tmp_path / "copy", limit=20)
    assert not (tmp_path / "copy").exists()


def test_a_copy_replaces_nothing(root: Path, neighbour: Path) -> None:
    (root / "file").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        files.copy(root, "file", neighbour / "file", limit=LIMIT)
    assert (neighbour / "file").read_bytes() == b"the neighbour's"


def test_a_leased_file_does_not_block_the_reader(root: Path) -> None:
    with (root / "file").open("w") as file:
        # The kernel notifies the owner of the lease by a signal, SIGIO by default.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(UnsafeFile):
            files.read(root, "file", limit=LIMIT)


@pytest.mark.parametrize("place", ["d", "d/e"])
@pytest.mark.parametrize("target", ["neighbour", "nothing", "file"])
def test_no_link_in_a_parent_is_followed(
    root: Path, neighbour: Path, place: str, target: str
) -> None:
    if target == "file":
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).touch()
    else:
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).symlink_to(neighbour if target == "neighbour" else "/nothing/here")
    name = f"{place}/file"
    with pytest.raises(UnsafeFile):
        files.read(root, name, limit=LIMIT)
    with pytest.raises(UnsafeFile):
        files.write(root, name, b"new")
    files.remove(root, name)
    assert not files.is_file(root, name)
    assert not files.is_directory(root, place)
    assert files.names(root, place) == []
    assert (neighbour / "file").read_bytes() == b"the neighbour's"

    for _ in range(2):
        files.make_directory(root, place)
        files.write(root, name, b"new")
    assert files.read(root, name, limit=LIMIT) == b"new"
    assert (neighbour / "file").read_bytes() == b"the neighbour's"


def test_the_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    files.write(tmp_path / "link", "file", b"new")
    assert files.read(tmp_path / "link", "file", limit=LIMIT) == b"new"
    files.remove(tmp_path / "link", "file")
    assert files.names(root) == []


def test_a_directory_replaced_during_a_read_is_safe(root: Path, neighbour: Path) -> None:
    numbers = itertools.count()

    def swap() -> None:
        with contextlib.suppress(OSError):
            (root / "d").rename(root / f"away{next(numbers)}")
        with contextlib.suppress(OSError):
            (root / "d").symlink_to(neighbour)
        with contextlib.suppress(OSError):
            (root / "d").unlink()

    with repeating(swap):
        for _ in range(500):
            with contextlib.suppress(FileNotFoundError, UnsafeFile):
                files.write(root, "d/file", b"mine")
            with contextlib.suppress(FileNotFoundError, UnsafeFile):
                assert files.read(root, "d/file", limit=LIMIT) == b"mine"
            with contextlib.suppress(OSError):
                files.remove(root, "d/file")
    assert (neighbour / "file").read_bytes() == b"the neighbour's"
    assert [path.name for path in neighbour.iterdir()] == ["file"]


def test_deleting_stays_in_the_tree_while_directories_are_replaced(
    root: Path, neighbour: Path
) -> None:
    def swap() -> None:
        with contextlib.suppress(OSError):
            (root / "tree" / "d").mkdir(parents=True)
            (root / "tree" / "d" / "file").touch()
            (root / "tree" / "d").rename(root / "tree" / "away")
            (root / "tree" / "d").symlink_to(neighbour)

    with repeating(swap):
        for _ in range(1000):
            with contextlib.suppress(OSError):
                files.remove(root, "tree")
    assert (neighbour / "file").read_bytes() == b"the neighbour's"


def test_another_hard_link_keeps_its_content(root: Path, neighbour: Path) -> None:
    (root / "file").hardlink_to(neighbour / "file")
    files.write(root, "file", b"new")
    assert (neighbour / "file").read_bytes() == b"the neighbour's"
    (root / "tree").mkdir()
    (root / "tree" / "file").hardlink_to(neighbour / "file")
    files.remove(root, "tree")
    assert (neighbour / "file").read_bytes() == b"the neighbour's"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../neighbour/file", "a/..", "a/../..", "f\0", "/"]
)
def test_a_name_that_leaves_the_root_is_refused(root: Path, neighbour: Path, name: str) -> None:
    (root / "a").mkdir()
    with pytest.raises(UnsafeFile):
        files.read(root, name, limit=LIMIT)
    assert not files.is_file(root, name)
    assert not files.is_directory(root, name)
    # An error here must not delete more than the test's own files.
    if name != "/":
        with pytest.raises(UnsafeFile):
            files.remove(root, name)
        with pytest.raises(UnsafeFile):
            files.write(root, name, b"new")
    assert (neighbour / "file").read_bytes() == b"the neighbour's"
    assert (root / "a").is_dir()


def test_an_absolute_name_is_refused(root: Path, neighbour: Path) -> None:
    name = str(neighbour / "file")
    with pytest.raises(UnsafeFile):
        files.read(root, name, limit=LIMIT)
    with pytest.raises(UnsafeFile):
        files.write(root, name, b"new")
    with pytest.raises(UnsafeFile):
        files.remove(root, name)
    with pytest.raises(UnsafeFile):
        files.make_directory(root, name)
    assert files.names(root, str(neighbour)) == []
    assert (neighbour / "file").read_bytes() == b"the neighbour's"


@pytest.mark.parametrize("name", ["a\nb", "-rf", " ", "a\udcffb", "ä" * 127, "n" * 255])
def test_unusual_names_are_valid(root: Path, name: str) -> None:
    files.write(root, f"{name}/{name}", b"x")
    assert files.names(root) == files.names(root, name) == [name]
    assert files.read(root, f"{name}/{name}", limit=1) == b"x"
    files.remove(root, f"{name}/{name}")
    files.remove(root, name)
    assert files.names(root) == []


def test_an_unusual_name_cannot_fake_a_log_line(root: Path) -> None:
    (root / "a\nERROR b\udcff").mkdir()
    with pytest.raises(UnsafeFile) as refused:
        files.read(root, "a\nERROR b\udcff", limit=LIMIT)
    assert str(refused.value).isprintable()


def test_a_name_that_is_too_long_is_unsafe(root: Path) -> None:
    with pytest.raises(UnsafeFile):
        files.read(root, "n" * 256, limit=LIMIT)
    assert not files.is_file(root, "n" * 256)
    assert files.names(root, "n" * 256) == []


@pytest.mark.parametrize(("depth", "name"), [(1500, "d"), (1500, "n" * 200)])
def test_any_depth_is_read_and_deleted(root: Path, depth: int, name: str) -> None:
    """The depth exceeds Python's recursion limit, and the second path exceeds PATH_MAX."""
    file = nest(root, depth, name)
    assert files.read(root, file, limit=LIMIT) == b""
    files.write(root, file, b"new")
    assert files.read(root, file, limit=LIMIT) == b"new"
    files.remove(root, name)
    assert files.names(root) == []


def test_a_tree_needs_few_descriptors(root: Path) -> None:
    nest(root, 300, "d")
    for number in range(300):
        (root / "d" / f"{number}").mkdir()
    with few_descriptors(6):
        files.remove(root, "d")
    assert files.names(root) == []


def test_a_host_without_descriptors_does_not_make_a_file_unsafe(root: Path) -> None:
    """Otherwise a session would be discarded because of it."""
    (root / "file").write_bytes(b"mine")
    with few_descriptors(0), pytest.raises(OSError, match="Too many open files") as refused:
        files.read(root, "file", limit=LIMIT)
    assert not isinstance(refused.value, UnsafeFile)


def test_a_directory_with_many_entries_is_listed_up_to_a_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_NAMES", 1000)
    for number in range(1000):
        (root / f"{number:04}").touch()
    assert files.names(root) == [f"{number:04}" for number in range(1000)]
    (root / "more").touch()
    with pytest.raises(UnsafeFile, match="over 1000 entries"):
        files.names(root)
    files.remove(root.parent, "root")
    assert not root.exists()


READ_ONLY = """
import sys
from pathlib import Path
from sandbox import files

root = Path(sys.argv[1])

def closed(mode):
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "b" / "c" / "file").touch()
    (root / "a" / "b" / "file").touch()
    for name in ("a/b/c", "a/b", "a", "."):
        (root / name).chmod(mode)

for mode in (0o500, 0o000):
    closed(mode)
    if not mode:
        try:
            files.read(root, "a/b/file", limit=10)
        except files.UnsafeFile:
            pass
        else:
            sys.exit("It was read.")
        assert files.names(root) == []
        assert not files.is_file(root, "a/b/file")
    files.write(root, "a/b/file", b"new")
    assert files.read(root, "a/b/file", limit=10) == b"new"
    files.make_directory(root, "a/b/c/d")
    files.remove(root, "a")
    assert files.names(root) == []
    closed(mode)
    files.remove(root, "a/b/file")
    files.remove(root.parent, root.name)
    root.mkdir()
"""


def test_removed_permissions_do_not_prevent_access(root: Path) -> None:
    as_ordinary_user(READ_ONLY, root)


def test_a_directory_of_another_user_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root can create one."""
    files.write(root, "d/file", b"x")
    (root / "d").chmod(0o500)

    def refuse(path: str, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "chmod", refuse)
    for name in ("d", "d/file"):
        with pytest.raises(PermissionError, match="not permitted: 'd'"):
            files.remove(root, name)
    assert files.read(root, "d/file", limit=LIMIT) == b"x"


def test_one_undeletable_file_does_not_keep_the_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only root can create a file that its owner cannot delete."""
    for name in ("a/b/c", "a/d", "e"):
        (root / "tree" / name).mkdir(parents=True)
        (root / "tree" / name / "file").touch()
    (root / "tree" / "a" / "held").touch()
    unlink = os.unlink

    def held(name: str, *, dir_fd: int) -> None:
        if name == "held":
            raise PermissionError(1, "Operation not permitted", name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", held)
    with pytest.raises(PermissionError, match="not permitted: 'held'"):
        files.remove(root, "tree")
    monkeypatch.undo()
    left = [path for path in root.rglob("*") if not path.is_dir()]
    assert [path.name for path in left] == ["held"]
    files.remove(root, "tree")
    assert files.names(root) == []


@pytest.mark.parametrize("name", ["file", "d/file", "d/d/d/file"])
def test_deleting_has_a_time_limit(root: Path, name: str) -> None:
    """A process can add files as fast as they are deleted."""
    files.write(root, f"tree/{name}", b"")
    with pytest.raises(TimeoutError):
        files.remove(root, "tree", seconds=0)
    files.remove(root, "tree")
    assert files.names(root) == []


def test_a_link_at_the_name_of_the_draft_is_not_followed(
    root: Path, neighbour: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the draft cannot be guessed, so the test sets it."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: "known")
    (root / ".known").symlink_to(neighbour / "file")
    with pytest.raises(FileExistsError):
        files.write(root, "file", b"new")
    assert (neighbour / "file").read_bytes() == b"the neighbour's"
    assert not files.is_file(root, "file")
