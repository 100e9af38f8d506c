"""Control of bwrap from outside: hold its first process, set limits, open sockets inside.

The supervisor imports this module: use only parts of the standard library that import quickly.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_NS_GET_USERNS = 0xB701
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1
_OOM_SCORE = 800
"""Of 1000: when memory runs out, the kernel kills a job before the worker."""

_NICENESS = 10
"""A job and its descendants yield the processor to the supervisor and the worker."""

_RESERVED_IDS = 300
"""The kernel never reuses process ids up to this number, so a job needs that many more."""


class Sandbox:
    """A bwrap process whose first process waits until `release`.

    Create it before the fork, pass `options` to bwrap in the child, then call `hold` in the parent.
    """

    def __init__(self) -> None:
        self._our_info, self._info = os.pipe()
        self._block, self._our_block = os.pipe()

    def options(self) -> list[str]:
        """Return the options of bwrap. Call it in the child that executes bwrap."""
        os.close(self._our_info)
        os.close(self._our_block)
        for descriptor in (self._info, self._block):
            os.set_inheritable(descriptor, True)
        return ["--info-fd", str(self._info), "--block-fd", str(self._block)]

    def hold(self) -> int:
        """Return the id of the sandbox's first process, which waits; 0 if bwrap created none."""
        os.close(self._info)
        os.close(self._block)
        with os.fdopen(self._our_info, "rb") as info:
            output = info.read()
        # {"child-pid": 1234, ...}
        _, _, rest = output.partition(b'"child-pid":')
        digits = rest.partition(b",")[0].strip(b" \n}")
        return int(digits) if digits.isdigit() else 0

    def release(self) -> None:
        """Let the first process continue."""
        os.close(self._our_block)


def set_limits(pid: int, processes: int | None, file_bytes: int | None) -> None:
    """Limit a process and its future descendants; None means no limit.

    `processes` includes threads. The user namespace has its own count, so only processes of the
    sandbox count. The kernel limit is somewhat higher, so that the watchdog can detect the excess.
    RLIMIT_NPROC does not apply to uid 0; the range of process ids limits root instead.
    """
    if processes is not None:
        processes += _RESERVED_IDS
        if os.geteuid() == 0:
            _limit_ids(pid, processes)
    limits = {resource.RLIMIT_NPROC: processes, resource.RLIMIT_FSIZE: file_bytes}
    for kind, limit in limits.items():
        if limit is not None:
            resource.prlimit(pid, kind, (limit, limit))
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
    with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(_OOM_SCORE))


def _limit_ids(pid: int, limit: int) -> None:
    """Limit the process ids in the namespace of a process, to stop a fork bomb of uid 0.

    Linux 6.14 and newer have one limit per namespace. Older kernels have one for the whole host,
    which must not change. Only a grandchild is in the namespace and can set its limit.
    """
    if kernel() < (6, 14):
        return
    child = os.fork()
    if child == 0:
        try:
            _enter(pid, "pid", _CLONE_NEWPID)
            if grandchild := os.fork():
                os.waitpid(grandchild, 0)
            else:
                with open("/proc/sys/kernel/pid_max", "w", encoding="ascii") as file:
                    file.write(str(limit))
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def kernel() -> tuple[int, ...]:
    """Return the Linux version, such as (6, 14)."""
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def listen_inside(pid: int, ports: list[int]) -> list[socket.socket]:
    """Return sockets that listen on 127.0.0.1 in the network namespace of a process.

    A child process enters the namespace, because a process cannot return from one.

    Raises:
        OSError: a port is in use there, or the kernel refuses.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            _enter(pid, "net", _CLONE_NEWNET)
            sockets = [_listening(port) for port in ports]
            socket.send_fds(theirs, [b"+"], [each.fileno() for each in sockets])
            os._exit(0)
        except OSError as error:
            theirs.send(os.strerror(error.errno or 0).encode())
        finally:
            os._exit(1)
    theirs.close()
    with ours:
        answer, descriptors, _, _ = socket.recv_fds(ours, 1024, len(ports))
    os.waitpid(child, 0)
    if answer != b"+":
        raise OSError(f"No socket can listen in the sandbox: {answer.decode() or 'unknown'}")
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def _listening(port: int) -> socket.socket:
    inside = socket.socket()
    inside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    inside.bind(("127.0.0.1", port))
    inside.listen(128)
    return inside


def _enter(pid: int, name: str, kind: int) -> None:
    """Enter the user namespace that owns a namespace of a process, then the namespace itself."""
    import fcntl

    namespace = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    _setns(owner, _CLONE_NEWUSER)
    _setns(namespace, kind)


def leave_keyring() -> None:
    """Leave the session keyring, such as Kerberos tickets: no namespace hides it.

    Does nothing on other processor architectures, or on kernels without keyrings.
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, _JOIN_SESSION_KEYRING, None)


def _setns(descriptor: int, kind: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
