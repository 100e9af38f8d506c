"""A program between the worker and one contained command, which leaves no process behind.

Usage: `python -I -S supervisor.py CONTROL KEEP PORTS LIMITS DISK -- COMMAND...`, as the only
process of a session.

* `CONTROL` is the descriptor of an inherited socket. End of file (the worker died or closed it), a
  line with a number of seconds, and SIGTERM, SIGINT or SIGHUP all mean "stop". The command gets
  SIGTERM, and SIGKILL if it still runs after those seconds (2 by default).
* `KEEP` is a descriptor that the command inherits, or -1.
* `PORTS` is `-` for a command without bwrap. Otherwise it lists the ports, separated by commas,
  where sockets listen inside the sandbox.
* `LIMITS` is the text of `sandbox.supervision.limits.Limits`.
* `DISK` is a directory on the disk that the command writes to.

The supervisor writes lines to the worker. `listening` carries the sockets. `no sandbox` means that
bwrap failed and the command was not started. `limit SENTENCE` means that the command is stopped
because it exceeded a limit.

Before this program ends, it kills every process that the command left behind. As a child subreaper
(prctl(2)) it inherits all orphans, in any session or process group.

The exit code is that of the command, or 128 + N if signal N ended it. If the supervisor itself is
killed, the kernel sends SIGTERM to the command (PR_SET_PDEATHSIG). Other systems than Linux have
neither feature, so only the process group of the command is killed there.
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
    # `python -I -S` starts without a search path for modules.
    sys.path.insert(0, os.path.abspath(os.path.join(__file__, "../../..")))

from sandbox.supervision import namespaces
from sandbox.supervision.cgroups import Group
from sandbox.supervision.limits import INTERVAL, Limits, Watchdog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

DEFAULT_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL if the worker sent no number, for example because it died."""

KILLING = 10.0
"""Seconds to wait for SIGKILL to take effect, for example on a process stuck in the kernel."""

CANNOT_START = 127
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL = 0.01
"""Seconds between two attempts, where no event reports success."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CHANGED_SIGNALS = (*_STOP_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that this program handles or Python ignores. The command starts with the defaults."""

_LINUX = sys.platform == "linux"


class Supervisor:
    """One command and its descendants, controlled by signals and by the worker's socket."""

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
        self.next_check = time.monotonic() + INTERVAL
        self.status: int | None = None
        self.deadline: float | None = None
        self.term_sent = False
        self.wakeup_fd, wakeup_writer = os.pipe()
        os.set_blocking(wakeup_writer, False)
        os.set_blocking(self.wakeup_fd, False)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, self._on_signal)

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
            self._wait_for_event()
            self._reap()
            self._enforce()
            self._check_limits()
        if self.group is not None:
            self._end_group(self.group)
        self._kill_the_rest()
        if self.group is not None:
            self.group.remove()
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
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
        """Start bwrap, and release its command once limits and sockets are set up."""
        sandbox = namespaces.Sandbox()
        self.child = self._start(sandbox)
        self.init = sandbox.hold()
        try:
            if self.init == 0:
                raise OSError("bwrap made no sandbox")
            self._set_up(self.init, ports)
        except OSError as error:
            # bwrap may have failed halfway. It has written its own message, if any, already.
            sys.stderr.write(f"The sandbox was not made: {error}.\n")
            sys.stderr.flush()
            self._report("no sandbox")
            _send(self.init or self.child, signal.SIGKILL)
        sandbox.release()

    def _set_up(self, init: int, ports: list[int]) -> None:
        if self.group is not None:
            self.group.add(init)
        namespaces.set_limits(init, self.limits.processes, self.limits.file_bytes)
        listening = namespaces.listen_inside(init, ports) if ports else []
        self._report("listening", listening)
        for each in listening:
            each.close()

    def _report(self, message: str, sockets: Sequence[socket.socket] = ()) -> None:
        line = f"{message}\n".encode()
        descriptors = [each.fileno() for each in sockets]
        worker = socket.socket(fileno=os.dup(self.control))
        try:
            socket.send_fds(worker, [line], descriptors)
        except OSError:
            # The worker has ended; the next poll sees the end of file.
            pass
        finally:
            worker.close()

    def _check_limits(self) -> None:
        """Kill a command that exceeds a limit, even while it is being stopped."""
        now = time.monotonic()
        if now < self.next_check:
            return
        self.next_check = now + INTERVAL
        exceeded = self.group.exceeded() if self.group is not None else None
        exceeded = exceeded or self.watchdog.exceeded(self._living, self.init)
        if exceeded is not None:
            self.next_check = math.inf
            if self.group is not None:
                self.group.kill()
            # During a fork bomb the sandbox's first process runs too rarely to end the others.
            _send(self.init or self.child, signal.SIGKILL)
            for pid, _ in self._living():
                _send(pid, signal.SIGKILL)
            self._report_limit(exceeded)
            self._ask_to_stop(0.0)

    def _end_group(self, group: Group) -> None:
        """Kill the remaining processes. Memory may have run out since the last check."""
        exceeded = group.exceeded()
        if exceeded is not None and self.next_check < math.inf:
            self._report_limit(exceeded)
        group.kill()

    def _report_limit(self, exceeded: str) -> None:
        if self.control >= 0:
            self._report(f"limit {exceeded}")

    def _release_streams(self) -> None:
        """Close this process's copies of the command's pipes, so that readers see end of file."""
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        if self.keep >= 0:
            os.close(self.keep)

    def _wait_for_event(self) -> None:
        until = min(self.next_check, math.inf if self.deadline is None else self.deadline)
        timeout = max(0.0, until - time.monotonic()) * 1000
        if self.deadline is not None and not self.term_sent:
            timeout = _POLL * 1000
        # Not select(2): inherited descriptors may exceed its limit of 1024.
        watched = select.poll()
        for number in (self.wakeup_fd, self.control):
            if number >= 0:
                watched.register(number, select.POLLIN)
        ready = [number for number, _ in watched.poll(timeout)]
        if self.wakeup_fd in ready:
            os.read(self.wakeup_fd, 4096)
        if self.control in ready:
            self._read_control()

    def _read_control(self) -> None:
        try:
            data = os.read(self.control, 4096)
        except OSError:
            data = b""
        self._ask_to_stop(_seconds(data))
        if not data:
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
        if not self.term_sent:
            self.term_sent = self._send_term()
        if time.monotonic() >= self.deadline:
            _send(self.init or self.child, signal.SIGKILL)
            self.deadline = time.monotonic() + KILLING

    def _send_term(self) -> bool:
        """Send SIGTERM to the command; return False if it has not started yet."""
        command = self.child
        if self.init:
            # bwrap and the sandbox's first process do not forward SIGTERM: they die at once, and
            # the command with them.
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
            return [process for process in below if process[1][0] not in (b"Z", b"X")]
        try:
            os.killpg(self.child, signal.SIGKILL)
        except OSError:
            return []
        return [(self.child, [])]


def _seconds(line: bytes) -> float:
    try:
        return float(line.split()[-1])
    except (ValueError, IndexError):
        return DEFAULT_GRACE


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def descendants(root: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield all descendants of `root`, including zombies, with their `stat_fields`."""
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
    """Read proc_pid_stat(5) starting at its third field, the state. Empty if the process ended.

    The second field, a name in parentheses, may itself contain spaces and parentheses.
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
    """Run with the arguments of the module's docstring; return the exit code."""
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
