"""A program that stands between the worker and one contained command, and leaves nothing behind.

Started as `python -I -S supervisor.py CONTROL KEEP PORTS LIMITS DISK -- COMMAND...`, alone in a
session. `CONTROL` is the number of an inherited socket: end of file there (the worker died or let
go), a line with a number of seconds, or SIGTERM, SIGINT or SIGHUP to this program mean "stop":
SIGTERM to the command and, when it has not ended after those seconds (2 without a number), SIGKILL.
`KEEP` is the number of a descriptor handed on to the command, or -1.

`PORTS` is `-` for a command as it is. For bwrap it names the ports, separated by commas, on which
sockets shall listen inside. `LIMITS` is the text of `sandbox.supervision.limits.Limits`; `DISK` a
directory on the disk that the command fills.

To the worker it writes lines: `listening` comes with the sockets, `no sandbox` means that bwrap
failed and the command was not started, and `limit SENTENCE` that it is stopped for a limit.

Whatever the command leaves behind is killed too, before this program ends: as a child subreaper
(prctl(2)) it inherits every orphan below it, in whichever session or process group.

Exit code: the command's own, or 128 + N when signal N ended it. It ends by a signal itself only
when somebody kills it: the command then gets SIGTERM from the kernel (PR_SET_PDEATHSIG). Without
Linux there is neither, and only the command's process group is killed.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time

if __name__ == "__main__":
    # Started without any search path for modules.
    sys.path.insert(0, os.path.abspath(os.path.join(__file__, "../../..")))

from sandbox.supervision import namespaces
from sandbox.supervision.cgroups import Group
from sandbox.supervision.limits import INTERVAL, Limits, Watchdog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

DEFAULT_GRACE = 2.0
KILLING = 10.0
"""Seconds for SIGKILL to take effect; a process stuck in the kernel does not obey it earlier."""

CANNOT_START = 127
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL = 0.01
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CHANGED_SIGNALS = (*_STOP_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ)
"""Handled here, or ignored by every Python; the command must start without either."""

_LINUX = sys.platform == "linux"


class Supervisor:
    """One command, its descendants, and the two ways in which news arrive."""

    def __init__(
        self,
        control: int,
        keep: int,
        ports: list[int] | None,
        limits: Limits,
        disk: str,
        command: list[str],
    ) -> None:
        self.control = control
        self.keep = keep
        self.ports = ports
        self.limits = limits
        self.command = command
        self.child = 0
        self.init = 0
        self.watchdog = Watchdog(limits, disk)
        self.group: Group | None = None
        self.next_look = time.monotonic() + INTERVAL
        self.status: int | None = None
        self.deadline: float | None = None
        self.told = False
        self.wake, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        os.set_blocking(self.wake, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, self._noted)

    def run(self) -> int:
        """Start the command, wait, clean up, and return the exit code."""
        if self.limits.groups is not None:
            self.group = Group(self.limits.groups, self.limits)
        if self.ports is None:
            self.child = self._start()
        else:
            self._start_sandbox(self.ports)
        self._release_streams()
        while self.status is None:
            self._wait_for_news()
            self._reap()
            self._enforce()
            self._look()
        if self.group is not None:
            self._end_group(self.group)
        self._kill_the_rest()
        if self.group is not None:
            self.group.remove()
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    def _noted(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP_SIGNALS:
            self._ask_to_stop(DEFAULT_GRACE)

    def _ask_to_stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def _start(self, sandbox: namespaces.Sandbox | None = None) -> int:
        parent = os.getpid()
        child = os.fork()
        if child:
            return child
        try:
            os.setsid()
            for number in _CHANGED_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            if sandbox is not None:
                namespaces.leave_keyring()
                self.command[1:1] = sandbox.options()
            elif self.group is not None:
                self.group.add(os.getpid())
            # bwrap dies of SIGTERM at once, and its sandbox with it.
            _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(CANNOT_START)
            if self.keep >= 0:
                os.set_inheritable(self.keep, True)
            os.execv(self.command[0], self.command)
        except OSError as error:
            sys.stderr.write(f"{self.command[0]} cannot be started: {error}.\n")
            sys.stderr.flush()
        os._exit(CANNOT_START)

    def _start_sandbox(self, ports: list[int]) -> None:
        """Start bwrap, and let its command begin once limits and sockets are in place."""
        sandbox = namespaces.Sandbox()
        self.child = self._start(sandbox)
        self.init = sandbox.hold()
        try:
            if self.init == 0:
                raise OSError("bwrap made no sandbox")
            self._set_up(self.init, ports)
        except OSError as error:
            # bwrap has failed, maybe after it had begun. Its own message, if any, came before.
            sys.stderr.write(f"The sandbox was not made: {error}.\n")
            sys.stderr.flush()
            self._tell("no sandbox")
            _send(self.init or self.child, signal.SIGKILL)
        sandbox.release()

    def _set_up(self, init: int, ports: list[int]) -> None:
        if self.group is not None:
            self.group.add(init)
        namespaces.set_limits(init, self.limits.processes, self.limits.file_bytes)
        listening = namespaces.listen_inside(init, ports) if ports else []
        self._tell("listening", listening)
        for each in listening:
            each.close()

    def _tell(self, what: str, sockets: Sequence[socket.socket] = ()) -> None:
        line = f"{what}\n".encode()
        descriptors = [each.fileno() for each in sockets]
        worker = socket.socket(fileno=os.dup(self.control))
        try:
            socket.send_fds(worker, [line], descriptors)
        except OSError:
            # The worker is gone, which is noticed in a moment.
            pass
        finally:
            worker.close()

    def _look(self) -> None:
        """End a command that is over a limit, also one that has been asked to end."""
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + INTERVAL
        exceeded = self.group.exceeded() if self.group is not None else None
        exceeded = exceeded or self.watchdog.exceeded(self._living, self.init)
        if exceeded is not None:
            self.next_look = math.inf
            if self.group is not None:
                self.group.kill()
            # After a fork bomb the first process of the sandbox comes late to end the others.
            _send(self.init or self.child, signal.SIGKILL)
            for pid, _ in self._living():
                _send(pid, signal.SIGKILL)
            self._tell_limit(exceeded)
            self._ask_to_stop(0.0)

    def _end_group(self, group: Group) -> None:
        """Kill what is left of the group. Memory may have run out since the last look."""
        exceeded = group.exceeded()
        if exceeded is not None and self.next_look < math.inf:
            self._tell_limit(exceeded)
        group.kill()

    def _tell_limit(self, exceeded: str) -> None:
        if self.control >= 0:
            self._tell(f"limit {exceeded}")

    def _release_streams(self) -> None:
        """Let go of the command's pipes, so that both ends see when it closes them."""
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        if self.keep >= 0:
            os.close(self.keep)

    def _wait_for_news(self) -> None:
        until = min(self.next_look, math.inf if self.deadline is None else self.deadline)
        timeout = max(0.0, until - time.monotonic()) * 1000
        if self.deadline is not None and not self.told:
            timeout = _POLL * 1000
        # Not select(2): the worker may have more than 1024 files open, and numbers are inherited.
        watched = select.poll()
        for number in (self.wake, self.control):
            if number >= 0:
                watched.register(number, select.POLLIN)
        ready = [number for number, _ in watched.poll(timeout)]
        if self.wake in ready:
            os.read(self.wake, 4096)
        if self.control in ready:
            self._read_control()

    def _read_control(self) -> None:
        try:
            said = os.read(self.control, 4096)
        except OSError:
            said = b""
        self._ask_to_stop(_seconds(said))
        if not said:
            os.close(self.control)
            self.control = -1

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                self.status = status

    def _enforce(self) -> None:
        if self.status is not None or self.deadline is None:
            return
        if not self.told:
            self.told = self._ask()
        if time.monotonic() >= self.deadline:
            _send(self.init or self.child, signal.SIGKILL)
            self.deadline = time.monotonic() + KILLING

    def _ask(self) -> bool:
        """Return whether the command has been asked to end; it may not have begun yet."""
        command = self.child
        if self.init:
            # bwrap and the first process of the sandbox just die, and the command with them.
            below = descendants(self.init)
            inside = (pid for pid, fields in below if int(fields[1]) == self.init)
            command = next(inside, 0)
        if command:
            _send(command, signal.SIGTERM)
            _send(command, signal.SIGCONT)
        return command != 0

    def _kill_the_rest(self) -> None:
        limit = time.monotonic() + KILLING
        while time.monotonic() < limit:
            living = self._living()
            for pid, _ in living:
                _send(pid, signal.SIGKILL)
            self._reap()
            if not living:
                return
            time.sleep(_POLL)

    def _living(self) -> list[tuple[int, list[bytes]]]:
        if _LINUX:
            below = descendants(os.getpid())
            return [found for found in below if found[1][0] not in (b"Z", b"X")]
        try:
            os.killpg(self.child, signal.SIGKILL)
        except OSError:
            return []
        return [(self.child, [])]


def _seconds(said: bytes) -> float:
    try:
        return float(said.split()[-1])
    except (ValueError, IndexError):
        return DEFAULT_GRACE


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def descendants(root: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield every process below `root`, zombies too, with its `stat_fields`."""
    children: dict[int, list[tuple[int, list[bytes]]]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_fields(int(name))):
            children.setdefault(int(fields[1]), []).append((int(name), fields))
    waiting = [root]
    while waiting:
        for pid, fields in children.get(waiting.pop(), ()):
            waiting.append(pid)
            yield pid, fields


def stat_fields(pid: int) -> list[bytes]:
    """Read proc_pid_stat(5) from its third field, the state, on; empty when there is no process.

    The second, a name in parentheses, may hold spaces and parentheses.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main(arguments: list[str]) -> int:
    """Run with `CONTROL KEEP PORTS LIMITS DISK -- COMMAND...`."""
    control, keep = int(arguments[0]), int(arguments[1])
    ports = None if arguments[2] == "-" else [int(port) for port in arguments[2].split(",") if port]
    limits = Limits.from_text(arguments[3])
    os.set_inheritable(control, False)
    if keep >= 0:
        os.set_inheritable(keep, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return Supervisor(control, keep, ports, limits, arguments[4], arguments[6:]).run()


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
