"""A program that contains a command with Landlock, for containers that forbid namespaces.

Started as `python -I -S landlock.py [--die-with-parent SIGNAL] [--rw PATH]... [--ro PATH]... --
COMMAND [ARGUMENT]...`. It restricts itself and then executes COMMAND in its own place. Process id,
parent, session, environment, working directory and inherited descriptors stay the same, so exit
codes and signals are the command's own. COMMAND is a path; PATH is not searched. Start it in a
session without a terminal.

Contained, for the command and all its descendants, root or not:

* Files. Below `--rw` paths everything is allowed except making devices. Below `--ro` paths reading
  and executing are allowed, and below /proc reading. /dev/null, zero, full, random, urandom and
  tty can be read and written. No other file can be opened, listed, executed, truncated, made,
  renamed, linked or removed. This includes /tmp and /dev/shm: put TMPDIR below a `--rw` path.
* Processes. Signals and ptrace reach no others. Without ptrace, the environment, memory and
  descriptors of other processes cannot be read.
* Unix sockets. Abstract sockets of other processes are refused. Named sockets outside are refused
  from ABI 9 (Linux 7.1) on; older kernels leave them to the mode of the socket.
* Privileges. There are no capabilities, and setuid programs give none (no_new_privs).

Not contained:

* the network, new user namespaces and System V IPC;
* names, arguments, status and resource limits (prlimit(2)) of other processes of the user;
* mode, times and extended attributes of the user's files, and whether a file exists. No file can
  be read by a change of its mode, but it can be opened to other users or closed to the worker;
* the number of processes, memory and disk, and processes that outlive the command.

So Landlock protects secrets and contents, but a job can still disturb other processes. Root has no
capability inside, so the mode of a file protects files of other users. Root can still make its own
files setuid or world-writable: run jobs as another user.

Pseudo-terminals (/dev/pts) and POSIX semaphores (/dev/shm) do not work inside.

Paths:

* A symbolic link in a given path is followed once, when the rule is made. The rule then belongs to
  the directory or file that was found. A new one under the same name is outside.
* Rights add up: a `--ro` path below a `--rw` path is writable.
* A `--ro` path that does not exist is left out; a `--rw` path must exist.
* A descriptor that is inherited keeps its rights. Opening it again as /dev/fd/N is checked by the
  directory of the file, even when the file has no name (tempfile.TemporaryFile). Make such a file
  below an allowed path, or with memfd_create(2), which needs no path (both measured).

Exit code: the command's own; 126 when it cannot be contained and 127 when it cannot be started,
with one sentence on standard error. There is no fallback to weaker rules.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NOT_CONTAINED = 126
NOT_STARTED = 127

REQUIRED_ABI = 6
"""ABI 3 (Linux 6.2) contains truncation, ABI 6 (Linux 6.12) signals and abstract sockets. With
less, a command could empty any file or kill the worker."""

# linux/landlock.h. The numbers of the system calls are the same on every architecture but Alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_MAKE_CHAR = 1 << 6
_MAKE_BLOCK = 1 << 11
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15
_UP_TO_ABI_6 = (1 << 16) - 1
_RESOLVE_UNIX = 1 << 16
_RESOLVE_UNIX_ABI = 9
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

_RIGHTS_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV | _RESOLVE_UNIX
_READ = _READ_FILE | _READ_DIR
_READ_AND_EXECUTE = _READ | _EXECUTE
# Without ioctl: TIOCSTI types into the terminal.
_USE_TERMINAL = _READ_FILE | _WRITE_FILE
_USE_DEVICE = _USE_TERMINAL | _IOCTL_DEV
_ALL_BUT_DEVICES = (_UP_TO_ABI_6 | _RESOLVE_UNIX) & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)

_SYSTEM = (
    # All of /proc: each descendant will have its own /proc/self, which does not exist yet.
    ("/proc", _READ),
    *((f"/dev/{name}", _USE_DEVICE) for name in ("null", "zero", "full", "random", "urandom")),
    ("/dev/tty", _USE_TERMINAL),
)

# linux/prctl.h and linux/capability.h
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_LIBC = ctypes.CDLL(None, use_errno=True)


class NotContained(Exception):
    """The command cannot be contained. The message has the reason."""


class Request:
    """The parsed command line."""

    def __init__(self) -> None:
        self.writable: list[str] = []
        self.readable: list[str] = []
        self.death_signal = 0
        self.command: list[str] = []


def available() -> int:
    """Return the Landlock ABI version of this kernel.

    Raises:
        NotContained: the kernel has no Landlock, or an ABI older than `REQUIRED_ABI`.
    """
    needed = f"Landlock of Linux 6.12 or newer (ABI {REQUIRED_ABI}) is needed"
    if sys.platform != "linux":
        raise NotContained(f"{needed}, and this is {sys.platform}.")
    try:
        abi = _syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        raise NotContained(f"{needed}, and {_reason(error)}.") from error
    if abi < REQUIRED_ABI:
        raise NotContained(f"{needed}, and this kernel has ABI {abi}.")
    return abi


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSYS:
        return "this kernel has none"
    if error.errno == errno.EOPNOTSUPP:
        return "it is switched off: add landlock to the kernel's lsm= parameter"
    if error.errno == errno.EPERM:
        return "the container's seccomp profile forbids it"
    return f"the kernel said: {error.strerror}"


def main(arguments: list[str]) -> int:
    """Contain and execute the command. Returns only on failure, with the exit code."""
    parent = os.getppid()
    try:
        request = _parsed(arguments)
        environment = _inherited_environment()
        _contain(request)
        _die_with(parent, request.death_signal)
    except (NotContained, OSError) as error:
        return _failed(NOT_CONTAINED, f"The command cannot be contained: {error}")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores these, and a program inherits ignored signals.
        signal.signal(number, signal.SIG_DFL)
    program = request.command[0]
    try:
        os.execve(program, request.command, environment)
    except OSError as error:
        return _failed(
            NOT_STARTED,
            f"{program} cannot be started: {error.strerror}. It and its interpreter have to be "
            "below a --ro or --rw path.",
        )


def _parsed(arguments: list[str]) -> Request:
    request = Request()
    rest = list(arguments)
    while rest and rest[0] != "--":
        option = rest.pop(0)
        value = rest.pop(0) if rest else ""
        if option == "--rw" and value:
            request.writable.append(value)
        elif option == "--ro" and value:
            request.readable.append(value)
        elif option == "--die-with-parent" and value in signal.Signals.__members__:
            request.death_signal = signal.Signals[value]
        else:
            raise NotContained(
                f"{option} {value!r} is not an option: use --rw PATH, --ro PATH or "
                "--die-with-parent SIGNAL, such as SIGTERM."
            )
    request.command = rest[1:]
    if not request.command or "/" not in request.command[0]:
        raise NotContained("the path of a command has to follow --.")
    return request


def _inherited_environment() -> dict[bytes, bytes]:
    """Return the environment without the LC_CTYPE that Python adds to it (PEP 538)."""
    with open("/proc/self/environ", "rb") as file:
        variables = (line.partition(b"=") for line in file.read().split(b"\0"))
    return {name: value for name, _, value in variables if name}


def _contain(request: Request) -> None:
    abi = available()
    handled = _UP_TO_ABI_6 | (_RESOLVE_UNIX if abi >= _RESOLVE_UNIX_ABI else 0)
    # struct landlock_ruleset_attr: files, network, scopes.
    attributes = struct.pack("=QQQ", handled, 0, _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS)
    ruleset = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    _allow(ruleset, handled, request)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities()
    _syscall(_RESTRICT_SELF, ruleset, 0)


def _die_with(parent: int, death_signal: int) -> None:
    """Ask for a signal at the parent's death, after the last change of credentials.

    Some credential changes clear the signal (prctl(2)). The changes made here do not, so a signal
    that the caller has requested stays (measured).
    """
    if death_signal:
        _prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            raise NotContained("its parent has ended.")


def _allow(ruleset: int, handled: int, request: Request) -> None:
    rules: Iterable[tuple[str, int]] = (
        *_SYSTEM,
        *((path, _READ_AND_EXECUTE) for path in request.readable),
        *((path, _ALL_BUT_DEVICES) for path in request.writable),
    )
    for path, rights in rules:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if rights != _ALL_BUT_DEVICES and error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            raise NotContained(f"{path} cannot be allowed: {error.strerror}.") from error
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _RIGHTS_OF_FILES
        # struct landlock_path_beneath_attr, which is packed.
        rule = struct.pack("=Qi", rights & handled, descriptor)
        _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        os.close(descriptor)


def _drop_capabilities() -> None:
    """Empty every set; the bounding set only with CAP_SETPCAP.

    Where the bounding set stays, no_new_privs keeps root from regaining it at exec (measured).
    """
    number = 0
    try:
        while True:
            _prctl(_PR_CAPBSET_DROP, number)
            number += 1
    except OSError as error:
        # EINVAL comes after the last capability, EPERM without CAP_SETPCAP.
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_LIBC.capset(header, bytes(24)))


def _prctl(option: int, value: int) -> None:
    _checked(_LIBC.prctl(option, *(ctypes.c_ulong(each) for each in (value, 0, 0, 0))))


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    _LIBC.syscall.restype = ctypes.c_long
    # ctypes passes plain integers as 32 bits.
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _checked(_LIBC.syscall(ctypes.c_long(number), *words))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _failed(code: int, sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
