"""bwrap from outside: holding its first process, its limits, and sockets that listen inside.

Standard library only, and only what is quick to import: the supervisor uses it.
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
"""Of 1000: under pressure the kernel ends a job before the worker."""

_NICENESS = 10
"""A job yields the processor to its supervisor and the worker, whatever it starts."""

_BEYOND = 300
"""Process ids up to this one are given out once only, so that fewer would be left for a job."""


class Sandbox:
    """bwrap, held at its first process until `release`.

    Make it before the fork, pass `options` to bwrap in the child, then call `hold` in the parent.
    """

    def __init__(self) -> None:
        self._our_info, self._info = os.pipe()
        self._block, self._our_block = os.pipe()

    def options(self) -> list[str]:
        """Return the options of bwrap, in the child that becomes it."""
        os.close(self._our_info)
        os.close(self._our_block)
        for descriptor in (self._info, self._block):
            os.set_inheritable(descriptor, True)
        return ["--info-fd", str(self._info), "--block-fd", str(self._block)]

    def hold(self) -> int:
        """Return the id of the sandbox's first process, which waits; 0 when bwrap made none."""
        os.close(self._info)
        os.close(self._block)
        with os.fdopen(self._our_info, "rb") as info:
            said = info.read()
        # {"child-pid": 1234, ...}
        _, _, rest = said.partition(b'"child-pid":')
        digits = rest.partition(b",")[0].strip(b" \n}")
        return int(digits) if digits.isdigit() else 0

    def release(self) -> None:
        """Let the first process go on."""
        os.close(self._our_block)


def set_limits(pid: int, processes: int | None, file_bytes: int | None) -> None:
    """Limit a process and all that it will start; None is no limit.

    The number of processes counts threads, and only those of the sandbox: its user namespace has a
    count of its own. The kernel allows some more than `processes`, so that the watchdog sees that
    there are too many. RLIMIT_NPROC does not bind uid 0, which is bound by its process ids.
    """
    if processes is not None:
        processes += _BEYOND
        if os.geteuid() == 0:
            _limit_ids(pid, processes)
    limits = {resource.RLIMIT_NPROC: processes, resource.RLIMIT_FSIZE: file_bytes}
    for kind, most in limits.items():
        if most is not None:
            resource.prlimit(pid, kind, (most, most))
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
    with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(_OOM_SCORE))


def _limit_ids(pid: int, most: int) -> None:
    """Limit the process ids of a process's namespace, so that a fork bomb of uid 0 has an end.

    The limit belongs to the namespace from Linux 6.14 on; on older kernels to the whole host, so
    that nothing is done. A child of a child is in the namespace, and each sets what it sees.
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
                    file.write(str(most))
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def kernel() -> tuple[int, ...]:
    """Return the version of Linux, as (6, 14)."""
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def listen_inside(pid: int, ports: list[int]) -> list[socket.socket]:
    """Return sockets that listen on 127.0.0.1 in the network namespace of a process.

    A child of this process enters the namespace, because nobody gets out of one again.

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
        said, descriptors, _, _ = socket.recv_fds(ours, 1024, len(ports))
    os.waitpid(child, 0)
    if said != b"+":
        raise OSError(f"No socket can listen in the sandbox: {said.decode() or 'unknown'}")
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def _listening(port: int) -> socket.socket:
    inside = socket.socket()
    inside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    inside.bind(("127.0.0.1", port))
    inside.listen(128)
    return inside


def _enter(pid: int, name: str, kind: int) -> None:
    """Enter a namespace of a process, by way of the user namespace that owns it."""
    import fcntl

    namespace = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    _setns(owner, _CLONE_NEWUSER)
    _setns(namespace, kind)


def leave_keyring() -> None:
    """Give up the keys of the session, such as tickets of Kerberos: no namespace hides them.

    Does nothing on machines other than those named, and on kernels without keys.
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, _JOIN_SESSION_KEYRING, None)


def _setns(descriptor: int, kind: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
