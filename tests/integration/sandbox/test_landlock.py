from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox import landlock
from tests.integration.sandbox import file_operations
from tests.integration.sandbox.accounts import PYTHON, SYSTEM, Account, readable_directory

TRACEABLE = """
import ctypes, os
# PR_SET_PTRACER: where Yama is on, only a process that is asked to may trace this one.
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
print(flush=True)
os.execv("/bin/sleep", ["sleep", "300"])
"""


@dataclass(frozen=True)
class ContainedJob:
    """The directories of one test, and methods to run programs in them."""

    account: Account
    base: Path

    def __post_init__(self) -> None:
        shutil.copy(landlock.__file__, self.base)
        for directory in (self.work, self.readable, self.outside):
            directory.mkdir()
            self.account.own(directory)
        shutil.copy(file_operations.__file__, self.readable)

    @property
    def work(self) -> Path:
        return self.base / "work"

    @property
    def readable(self) -> Path:
        return self.base / "readable"

    @property
    def outside(self) -> Path:
        return self.base / "outside"

    def command(self, *command: str | Path, options: tuple[str, ...] = ()) -> list[str]:
        """The command line of a contained command."""
        launcher = [PYTHON, "-I", "-S", str(self.base / "landlock.py")]
        system = [part for path in SYSTEM for part in ("--ro", path)]
        paths = ["--rw", str(self.work), "--ro", str(self.readable)]
        return [*launcher, *options, *system, *paths, "--", *map(str, command)]

    def run(self, *command: str | Path, options: tuple[str, ...] = (), **popen: Any) -> str:
        """Run a command inside and return its output."""
        done = self.try_run(*command, options=options, **popen)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_run(
        self, *command: str | Path, options: tuple[str, ...] = (), **popen: Any
    ) -> subprocess.CompletedProcess[str]:
        return self.outside_run(*self.command(*command, options=options), **popen)

    def outside_run(self, *command: str | Path, **popen: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as the same user, without the sandbox."""
        arguments = {"cwd": self.work, "env": self.environment, **self.account.popen, **popen}
        return subprocess.run(command, capture_output=True, text=True, **arguments)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.work),
            "TMPDIR": str(self.work),
        }

    def python(self, code: str, *arguments: object, **popen: Any) -> str:
        """Run a program inside."""
        return self.run(PYTHON, "-I", "-S", "-c", code, *map(str, arguments), **popen)

    def answers(self, code: str, *arguments: object, **popen: Any) -> tuple[str, str]:
        """Return the output of a program without and with the sandbox."""
        words = (PYTHON, "-I", "-S", "-c", code, *map(str, arguments))
        free = self.outside_run(*words, **popen)
        assert free.returncode == 0, free.stderr
        return free.stdout, self.run(*words, **popen)

    @contextlib.contextmanager
    def other_process(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process of the same user, outside."""
        with subprocess.Popen(
            [PYTHON, "-I", "-S", "-c", TRACEABLE],
            stdout=subprocess.PIPE,
            env={"SECRET": "word"},
            **self.account.popen,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def job(account: Account) -> Iterator[ContainedJob]:
    with readable_directory() as base:
        yield ContainedJob(account, base)


def file_outcomes(job: ContainedJob, directory: Path, *, contained: bool) -> dict[str, str]:
    """Return the result of each operation on files in a new directory."""
    file_operations.prepare(directory)
    job.account.own(directory)
    allowed = Path(tempfile.mkdtemp(dir=job.work))
    job.account.own(allowed)
    run = job.try_run if contained else job.outside_run
    program = job.readable / "file_operations.py"
    done = run(PYTHON, "-I", "-S", program, directory, allowed)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    assert found.keys() == file_operations.names(file_operations.OPERATIONS)
    return found


def test_other_files_cannot_be_accessed(job: ContainedJob):
    free = file_outcomes(job, job.outside / "free", contained=False)
    assert set(free.values()) == {"done"}
    found = file_outcomes(job, job.outside / "contained", contained=True)
    assert set(found.values()) <= {"EACCES", "EXDEV"}


def test_files_below_writable_paths_can_be_written(job: ContainedJob):
    found = file_outcomes(job, job.work / "inner", contained=True)
    assert set(found.values()) == {"done"}


def test_files_below_readable_paths_can_only_be_read_and_executed(job: ContainedJob):
    found = file_outcomes(job, job.readable / "inner", contained=True)
    open_ones = {name for name, answer in found.items() if answer == "done"}
    reading = [*file_operations.READING, *file_operations.EXECUTING]
    assert open_ones == file_operations.names(reading)


def test_files_below_a_readable_path_in_a_writable_one_are_writable(job: ContainedJob):
    inner = job.work / "inner"
    inner.mkdir()
    job.account.own(inner)
    job.run("/bin/sh", "-c", f"echo > {inner}/file", options=("--ro", str(inner)))


@pytest.mark.parametrize(("option", "writable"), [("--ro", False), ("--rw", True)])
def test_single_files_can_be_allowed(job: ContainedJob, option: str, writable: bool):
    for name in ("one", "two"):
        (job.outside / name).write_text(name)
    job.account.own(job.outside)
    script = """
import sys
def said(call):
    try: call()
    except OSError as error: return error.strerror
    return "done"
one, two = sys.argv[1:]
print([said(lambda: open(one)), said(lambda: open(one, "w")), said(lambda: open(two))])
"""
    paths = [job.outside / "one", job.outside / "two"]
    words = [PYTHON, "-I", "-S", "-c", script, *map(str, paths)]
    refused = "Permission denied"
    wanted = ["done", "done" if writable else refused, refused]
    assert job.run(*words, options=(option, str(paths[0]))) == f"{wanted}\n"


def test_a_link_in_a_path_is_followed_when_the_rule_is_created(job: ContainedJob):
    (job.outside / "file").write_text("found")
    link = job.base / "link"
    link.symlink_to(job.outside)
    reading = f"cat {link}/file {job.outside}/file"
    assert job.try_run("/bin/sh", "-c", reading).returncode == 1
    assert job.run("/bin/sh", "-c", reading, options=("--ro", str(link))) == "foundfound"


def test_devices_that_programs_need_can_be_used(job: ContainedJob):
    code = """
import termios
for name in ("null", "zero", "full", "random", "urandom"):
    with open(f"/dev/{name}", "r+b", buffering=0) as device: device.read(1)
with open("/dev/null", "w") as null:
    try: termios.tcgetattr(null)
    except termios.error as error: print(error.args[1])
"""
    assert job.python(code) == "Inappropriate ioctl for device\n"
    assert job.run("/bin/sh", "-c", "(echo again | cat /dev/stdin > /dev/fd/1) | cat") == "again\n"


@pytest.mark.parametrize("directory", ["/tmp", "/var/tmp", "/dev/shm", "/dev/pts", "/sys", "/"])
def test_shared_directories_cannot_be_accessed(job: ContainedJob, directory: str):
    code = """
import os, sys
try: print(len(os.listdir(sys.argv[1])) >= 0)
except PermissionError: print("refused")
"""
    assert job.answers(code, directory) == ("True\n", "refused\n")


def test_no_device_can_be_created(job: ContainedJob):
    """The device 0:0, which has no driver, needs no capability."""
    code = """
import os, stat
try: os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(0, 0))
except PermissionError: print("refused")
else: os.unlink("device")
"""
    assert job.answers(code) == ("", "refused\n")


USING_THE_TERMINAL = """
import os, termios
with open("/dev/tty", "w") as terminal:
    terminal.write("written")
    try: termios.tcgetattr(terminal)
    except termios.error as error: print(error.args[1])
"""


def test_the_terminal_of_the_caller_cannot_be_controlled(job: ContainedJob):
    """Otherwise a job could type into it (TIOCSTI)."""
    leader = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""
    ours, theirs = os.openpty()
    with open(ours, "rb") as screen, open(theirs, "rb"):
        words = [PYTHON, "-I", "-S", "-c", leader, str(theirs), *job.command(PYTHON, "-c")]
        done = job.outside_run(*words, USING_THE_TERMINAL, pass_fds=[theirs])
        assert (done.stdout, screen.read1()) == ("Permission denied\n", b"written")


OF_THE_KERNEL = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/drop_caches",
    "/proc/sysrq-trigger",
    "/proc/self/oom_score_adj",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
]


def test_root_cannot_open_a_setting_of_the_kernel_for_writing(job: ContainedJob):
    """Root stays the owner of these files, so only Landlock protects them."""
    if not job.account.is_root:
        pytest.skip("they are root's")
    code = """
import os, sys
for path in sys.argv[1:]:
    try: os.close(os.open(path, os.O_WRONLY))
    except PermissionError: print("refused", path)
"""
    existing = [path for path in OF_THE_KERNEL if Path(path).exists()]
    assert len(existing) > 3
    free, contained = job.answers(code, *existing)
    assert (free, contained.split()[1::2]) == ("", existing)


def test_git_commits_in_an_allowed_repository(job: ContainedJob):
    script = """
set -e
git init --quiet repository && cd repository
echo content > file && git add file
git -c user.name=A -c user.email=a@example.com commit --quiet --message=One
git log --format=%s && git status --short
"""
    assert job.run("/bin/sh", "-c", script) == "One\n"


def test_programs_work_with_children_pipes_threads_and_temporary_files(job: ContainedJob):
    code = """
import subprocess, sys, tempfile, threading
with tempfile.TemporaryFile() as file: file.write(b"x")
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
sys.stdout.flush()
subprocess.run("echo shell | cat; (sleep 0 & wait)", shell=True, check=True)
"""
    assert job.python(code) == "thread\nshell\n"


REACHING_A_PROCESS = """
import ctypes, os, signal, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def environ():
    with open(f"/proc/{pid}/environ") as file: file.read()

def memory():
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))

def descriptors():
    os.readlink(f"/proc/{pid}/fd/1")

def trace():
    child = os.fork()
    if child == 0:
        # PTRACE_SEIZE, which ends with this child.
        os._exit(libc.ptrace(0x4206, pid, 0, 0) and 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]): raise PermissionError

def kill():
    os.kill(pid, signal.SIGCONT)

def kill_by_descriptor():
    signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGCONT)

for attempt in (environ, memory, descriptors, trace, kill, kill_by_descriptor):
    try: attempt()
    except PermissionError: print(attempt.__name__)
"""


def test_other_processes_cannot_be_accessed(job: ContainedJob):
    with job.other_process() as other:
        free, contained = job.answers(REACHING_A_PROCESS, other.pid)
    assert free == ""
    assert contained.split() == [
        "environ",
        "memory",
        "descriptors",
        "trace",
        "kill",
        "kill_by_descriptor",
    ]


def test_own_children_can_be_controlled(job: ContainedJob):
    code = f"""
import subprocess, sys
words = [sys.executable, "-c", {TRACEABLE!r}]
with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
    child.stdout.readline()
    done = subprocess.run([sys.executable, "-c", {REACHING_A_PROCESS!r}, str(child.pid)])
    child.terminate()
print(done.returncode, child.returncode)
"""
    assert job.python(code) == "0 -15\n"


CONNECTING = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    try: client.connect(sys.argv[1].replace("@", "\\0"))
    except PermissionError: print("refused")
    else: print("connected")
"""


@contextlib.contextmanager
def listening(address: str) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address.replace("@", "\0"))
        listener.listen()
        yield


def test_abstract_sockets_of_other_processes_are_refused(job: ContainedJob):
    name = f"@{job.base}"
    with listening(name):
        assert job.answers(CONNECTING, name) == ("connected\n", "refused\n")


def test_named_sockets_of_other_processes_are_refused_on_newer_kernels(job: ContainedJob):
    path = job.outside / "socket"
    with listening(str(path)):
        job.account.own(job.outside)
        free, contained = job.answers(CONNECTING, path)
    assert free == "connected\n"
    assert contained == ("connected\n" if landlock.available() < 9 else "refused\n")


@pytest.mark.parametrize("name", ["@own", "own"])
def test_own_sockets_can_be_used(job: ContainedJob, name: str):
    unique = f"@{job.base}" if name.startswith("@") else name
    code = f"""
import socket, subprocess, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1].replace("@", "\\0"))
listener.listen()
subprocess.run([sys.executable, "-c", {CONNECTING!r}, sys.argv[1]], check=True)
"""
    assert job.python(code, unique) == "connected\n"


def test_inherited_descriptors_keep_their_rights(job: ContainedJob):
    path = job.outside / "log"
    code = """
import os, sys
number = int(sys.argv[1])
os.write(number, b"written\\n")
os.ftruncate(number, 4)
os.lseek(number, 0, os.SEEK_SET)
print(os.read(number, 9))
"""
    with path.open("w+b") as file:
        assert job.python(code, file.fileno(), pass_fds=[file.fileno()]) == "b'writ'\n"


READING_AGAIN = """
import sys
try: print(open(f"/dev/fd/{sys.argv[1]}").read())
except PermissionError: print("refused")
"""


@pytest.mark.parametrize(
    ("place", "answer"), [("outside", "refused"), ("readable", "prompt"), ("work", "prompt")]
)
def test_a_file_without_a_name_is_reopened_by_its_directory(
    job: ContainedJob, place: str, answer: str
):
    with tempfile.TemporaryFile(dir=job.base / place) as file:
        os.fchown(file.fileno(), job.account.uid, job.account.gid)
        file.write(b"prompt")
        file.flush()
        number = file.fileno()
        found = job.answers(READING_AGAIN, number, pass_fds=[number])
    assert found == ("prompt\n", f"{answer}\n")


def test_a_file_in_memory_can_be_reopened(job: ContainedJob):
    number = os.memfd_create("prompt")
    with os.fdopen(number, "wb") as file:
        os.fchown(number, job.account.uid, job.account.gid)
        file.write(b"prompt")
        file.flush()
        assert job.python(READING_AGAIN, number, pass_fds=[number]) == "prompt\n"


def test_exit_codes_pass_through(job: ContainedJob):
    assert job.try_run("/bin/sh", "-c", "exit 7").returncode == 7
    assert job.try_run("/bin/sh", "-c", "kill -USR1 $$").returncode == -signal.SIGUSR1


def test_the_command_replaces_the_launcher_process(job: ContainedJob):
    command = job.command("/bin/sh", "-c", "trap 'exit 9' TERM; echo $$; while :; do sleep 0; done")
    with subprocess.Popen(command, stdout=subprocess.PIPE, **job.account.popen) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 9


@pytest.mark.parametrize(
    "environment", [{}, {"A": "b\nc", "B": "", "LC_CTYPE": "C", "Ü": "\udcff"}]
)
def test_the_environment_is_unchanged(job: ContainedJob, environment: dict[str, str]):
    wanted = sorted(os.fsencode(f"{name}={value}") for name, value in environment.items())
    command = job.command("/usr/bin/env", "-0")
    done = subprocess.run(command, env=environment, capture_output=True, **job.account.popen)
    assert sorted(filter(None, done.stdout.split(b"\0"))) == wanted


def test_the_working_directory_is_unchanged(job: ContainedJob):
    assert job.run("/bin/sh", "-c", "pwd -P", cwd=job.outside) == f"{job.outside}\n"


def status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_no_further_signal_is_ignored(job: ContainedJob):
    """Python ignores SIGPIPE and SIGXFSZ. Programs started by `nohup` and `make` ignore others."""
    ignored = int(status(job.run("/bin/cat", "/proc/self/status"))["SigIgn"], 16)
    inherited = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True)
    assert ignored & ~int(status(inherited.stdout)["SigIgn"], 16) == 0


CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def test_there_are_no_privileges(job: ContainedJob):
    fields = status(job.run("/bin/cat", "/proc/self/status"))
    sets = {name: int(fields[name], 16) for name in CAPABILITY_SETS}
    # Clearing the bounding set needs CAP_SETPCAP.
    bounding = 0 if job.account.is_root else sets["CapBnd"]
    assert sets == {**dict.fromkeys(CAPABILITY_SETS, 0), "CapBnd": bounding}
    assert fields["NoNewPrivs"] == "1"


def test_capabilities_are_not_regained_from_a_remaining_bounding_set(job: ContainedJob):
    if not job.account.is_root:
        pytest.skip("only root has capabilities")
    lacking = ["/usr/bin/setpriv", "--bounding-set=-setpcap", "--inh-caps=-all"]
    command = job.command("/bin/sh", "-c", "exec cat /proc/self/status")
    fields = status(job.outside_run(*lacking, *command).stdout)
    assert int(fields["CapBnd"], 16) != 0
    assert (int(fields["CapPrm"], 16), int(fields["CapEff"], 16)) == (0, 0)


def test_a_missing_readable_path_is_skipped(job: ContainedJob):
    missing = ("--ro", str(job.base / "missing"), "--ro", str(job.base / "landlock.py" / "x"))
    assert job.run("/bin/echo", "ran", options=missing) == "ran\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--rw", "/missing"), "/missing cannot be allowed: No such file or directory."),
        (("--rx", "/usr"), "--rx '/usr' is not an option"),
        (("--die-with-parent", "TERM"), "--die-with-parent 'TERM' is not an option"),
    ],
)
def test_a_wrong_command_line_is_refused(
    job: ContainedJob, options: tuple[str, ...], sentence: str
):
    done = job.try_run("/bin/echo", "ran", options=options)
    assert (done.returncode, done.stdout) == (landlock.NOT_CONTAINED, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [(), ("echo",)])
def test_the_command_must_be_a_path(job: ContainedJob, command: tuple[str, ...]):
    done = job.try_run(*command)
    assert done.returncode == landlock.NOT_CONTAINED
    assert "the path of a command has to follow --" in done.stderr


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/usr/bin/missing", "No such file or directory"), ("outside", "Permission denied")],
)
def test_a_command_that_cannot_be_started_is_named(job: ContainedJob, program: str, reason: str):
    (job.outside / "program").write_text("#!/bin/sh\n")
    (job.outside / "program").chmod(0o755)
    path = str(job.outside / "program") if program == "outside" else program
    done = job.try_run(path)
    assert done.returncode == landlock.NOT_STARTED
    assert done.stderr.startswith(f"{path} cannot be started: {reason}.")


WITHOUT_LANDLOCK = """
import ctypes, os, struct, sys
def step(code, yes, no, value): return struct.pack("=HBBI", code, yes, no, value)
# Load the number of the system call; if it is landlock_create_ruleset, return the error.
steps = [step(0x20, 0, 0, 0), step(0x15, 0, 1, 444), step(0x06, 0, 0, 0x50000 | int(sys.argv[1]))]
program = b"".join([*steps, step(0x06, 0, 0, 0x7FFF0000)])
kept = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("@HP", 4, ctypes.addressof(kept)), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (38, "this kernel has none"),
        (95, "it is switched off: add landlock to the kernel's lsm= parameter"),
        (1, "the container's seccomp profile forbids it"),
        (12, "the kernel said: Cannot allocate memory"),
    ],
)
def test_without_landlock_no_command_runs(job: ContainedJob, number: int, reason: str):
    words = [PYTHON, "-I", "-S", "-c", WITHOUT_LANDLOCK, str(number)]
    done = job.outside_run(*words, *job.command("/bin/echo", "ran"))
    assert (done.returncode, done.stdout) == (landlock.NOT_CONTAINED, "")
    assert done.stderr == (
        "The command cannot be contained: Landlock of Linux 6.12 or newer (ABI 6) is needed, "
        f"and {reason}.\n"
    )


def test_an_older_landlock_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """No kernel can be configured to offer less, so its answer is replaced."""
    monkeypatch.setattr(landlock, "_syscall", lambda *_: 5)
    with pytest.raises(landlock.NotContained, match=r"and this kernel has ABI 5\.$"):
        landlock.available()
    assert landlock.main(["--", "/bin/true"]) == landlock.NOT_CONTAINED
    assert "this kernel has ABI 5" in capsys.readouterr().err


def test_other_operating_systems_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(landlock.NotContained, match=r"and this is darwin\.$"):
        landlock.available()


NEWER_KERNEL = """
import sys
sys.path.insert(0, sys.argv[1])
import landlock

def answer(number, *arguments):
    if number == 444 and arguments[0]:
        print("handled", int.from_bytes(arguments[0][:8], sys.byteorder) >> 16)
    if number == 445:
        print("allowed", int.from_bytes(arguments[2][:8], sys.byteorder) >> 16)
    return 9

landlock._syscall = answer
landlock.main(["--ro", "/usr", "--rw", "/tmp", "--", "/missing/command"])
"""


def test_a_newer_kernel_restricts_named_sockets(job: ContainedJob):
    """This kernel may be too old, so its answers are replaced."""
    done = job.outside_run(PYTHON, "-I", "-S", "-c", NEWER_KERNEL, job.base)
    system = ["allowed 0"] * 7
    assert done.stdout.splitlines() == ["handled 1", *system, "allowed 0", "allowed 1"]


def test_the_abi_query_changes_nothing():
    before = Path("/proc/self/status").read_text()
    assert landlock.available() >= landlock.REQUIRED_ABI
    for field in ("NoNewPrivs", "Seccomp", *CAPABILITY_SETS):
        assert status(Path("/proc/self/status").read_text())[field] == status(before)[field]
    assert Path("/proc/1/status").read_text()


PARENT = """
import ctypes, os, signal, sys
own = int(sys.argv[1])
if os.fork() == 0:
    if own: ctypes.CDLL(None).prctl(1, own, 0, 0, 0)
    os.execv(sys.argv[2], sys.argv[2:])
sys.stdin.read()
"""
CHILD = "trap 'echo asked; exit' USR1; echo $$; for i in $(seq 1000); do sleep 0.01; done"


@pytest.mark.parametrize(
    ("options", "own"), [(("--die-with-parent", "SIGUSR1"), 0), ((), signal.SIGUSR1)]
)
def test_the_command_gets_a_signal_when_its_parent_dies(
    job: ContainedJob, options: tuple[str, ...], own: int
):
    """Requested by an option, or by the caller before it starts the launcher."""
    contained = job.command("/bin/sh", "-c", CHILD, options=options)
    words = [PYTHON, "-I", "-S", "-c", PARENT, str(int(own)), *contained]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, **job.account.popen) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline())
        parent.kill()
        assert parent.stdout.readline() == b"asked\n"


ORPHANED = """
import sys
sys.path.insert(0, sys.argv[1])
import landlock
landlock.os.getppid = iter([7, 1]).__next__
sys.exit(landlock.main(["--die-with-parent", "SIGKILL", "--", "/bin/echo", "ran"]))
"""


def test_a_command_whose_parent_has_just_died_is_not_started(job: ContainedJob):
    """The exact moment cannot be reached from outside, so the parent ids are replaced."""
    done = job.outside_run(PYTHON, "-I", "-S", "-c", ORPHANED, job.base)
    assert (done.returncode, done.stdout) == (landlock.NOT_CONTAINED, "")
    assert done.stderr == "The command cannot be contained: its parent has ended.\n"


LEFT_OPEN = """
import ctypes, os, resource, sys
path, pid = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)

def asked_of_libc(result):
    if result < 0: raise OSError(ctypes.get_errno(), "refused")

def mode(): os.chmod(path, 0o644)
def times(): os.utime(path, (1, 1))
def attributes(): os.setxattr(path, "user.word", b"x")
def existence(): os.stat(path)
def watching():
    asked_of_libc(libc.inotify_add_watch(libc.inotify_init(), os.path.dirname(path).encode(), 2))
def command_line():
    with open(f"/proc/{pid}/cmdline") as file: file.read()
def limits(): resource.prlimit(pid, resource.RLIMIT_NOFILE, (16, 16))
def shared_memory(): asked_of_libc(libc.shmget(0, 1, 0o1600))

attempts = (mode, times, attributes, existence, watching, command_line, limits, shared_memory)
for attempt in attempts:
    try: attempt()
    except OSError as error: print(attempt.__name__, error)
"""


def test_documented_gaps_exist(job: ContainedJob):
    """The gaps in the module's documentation. The test fails if a newer kernel closes one."""
    path = job.outside / "file"
    path.touch()
    job.account.own(job.outside)
    with job.other_process() as other:
        assert job.python(LEFT_OPEN, path, other.pid) == ""
        limits = Path(f"/proc/{other.pid}/limits").read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert "16                   16                   files" in limits
