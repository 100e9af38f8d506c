"""An installation of canaries for `inside.py` to attack: real processes, sockets and files."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.integration.sandbox.accounts import PYTHON, Account, readable_directory

HERE = Path(__file__).parent
ENDING = 30.0
"""Seconds for processes to end."""


@dataclass(frozen=True)
class Limits:
    """Limits of a sandbox, in numbers and bytes. The attacks exceed them slightly.

    They stay above the limit for `hold_seconds`, if the sandbox checks periodically.
    """

    processes: int = 64
    memory: int = 64 << 20
    file: int = 1 << 20
    hold_seconds: float = 0.0


@dataclass(frozen=True)
class Attempt:
    is_open: bool
    detail: str


@dataclass(frozen=True)
class Targets:
    """The canaries, and two directories of the job itself.

    The job must be able to write below `job` and to read `tools`.
    """

    base: Path
    account: Account
    victims: dict[str, subprocess.Popen[bytes]]

    @property
    def job(self) -> Path:
        return self.base / "job"

    @property
    def tools(self) -> Path:
        return self.base / "tools"

    @property
    def scratch(self) -> Path:
        return self.job / "scratch"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the job, with Claude's credential."""
        identity = {"NAME": "A", "EMAIL": "a@example.com"}
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.job / "home"),
            "TMPDIR": str(self.job / "tmp"),
            "ANTHROPIC_API_KEY": "canary-claude",
            **{f"GIT_AUTHOR_{name}": value for name, value in identity.items()},
            **{f"GIT_COMMITTER_{name}": value for name, value in identity.items()},
        }

    @property
    def attack(self) -> list[str]:
        """The command line of the attacks; append names to select some."""
        program, description = self.tools / "inside.py", self.tools / "targets.json"
        return [PYTHON, "-I", "-S", str(program), str(description)]

    def attacked(
        self,
        *sandbox: str,
        names: Iterable[str] = (),
        inherited: tuple[int, ...] = (),
        **changes: str,
    ) -> dict[str, Attempt]:
        """Run attacks in a sandbox and return the results. Call it once.

        Args:
            sandbox: the start of the command line; empty for no sandbox.
            names: ids of attacks; empty for all.
            inherited: descriptors that the sandbox inherits.
            changes: variables that replace those of the job's environment.
        """
        with subprocess.Popen(
            [*sandbox, *self.attack, *names],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.job,
            env={**self.environment, **changes},
            pass_fds=inherited,
            **self.account.popen,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            if not line:
                raise AssertionError(process.stderr.read().decode())
            found = json.loads(line)
            process.wait(ENDING)
            staying = self._staying({"B07": process.stdout, "B08": process.stderr})
        return {name: self._seen(name, each, staying) for name, each in found.items()}

    def _staying(self, streams: dict[str, IO[bytes]]) -> set[str]:
        """Return the attacks whose processes still answer, and end the processes."""
        (self.scratch / "are-you-there").touch()
        open_streams = dict(streams)
        staying: set[str] = set()
        while open_streams.keys() - staying:
            staying |= {name for name in streams if (self.scratch / name).exists()}
            for name in [name for name, stream in open_streams.items() if has_ended(stream)]:
                del open_streams[name]
            time.sleep(0.01)
        (self.scratch / "stop").touch()
        for stream in open_streams.values():
            os.set_blocking(stream.fileno(), True)
            stream.read()
        return staying

    def _seen(self, name: str, found: dict[str, Any], staying: set[str]) -> Attempt:
        """Correct the result of an attack by its effect outside."""
        is_open, detail = found["open"], found["detail"]
        if name in self.victims:
            if is_open:
                self.victims[name].wait(ENDING)
            is_open = self.victims[name].poll() is not None
        elif name in ("B07", "B08"):
            is_open = name in staying
        return Attempt(is_open, detail)

    def outside(self) -> dict[Path, tuple[int, bytes]]:
        """Mode and content of every file that the job must not change."""
        return {
            path: (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(self.base.rglob("*"))
            if self.job not in (path, *path.parents)
        }


def has_ended(stream: IO[bytes]) -> bool:
    """Return whether every process has closed the other end of a pipe."""
    os.set_blocking(stream.fileno(), False)
    try:
        return os.read(stream.fileno(), 65536) == b""
    except BlockingIOError:
        return False


@contextlib.contextmanager
def targets(account: Account, limits: Limits | None = None) -> Iterator[Targets]:
    """Set up all targets for a user, and remove them at the end."""
    with readable_directory() as base, contextlib.ExitStack() as running:
        secret = f"canary-api-{secrets.token_hex(8)}"
        files = make_files(base, secret)
        account.own(base)
        setuid = make_setuid_program(base / "tools", account)
        worker, services = start_worker(base, account, secret, running)
        names = ("A17", "A18", "B05", "B06")
        victims = {name: start_victim(account, running) for name in names}
        description = {
            **{name: str(path) for name, path in files.items()},
            **services,
            **setuid,
            **of_the_machine(),
            **of_the_limits(limits or Limits()),
            "worker": identity(worker),
            "victims": {name: identity(process) for name, process in victims.items()},
            "left_out": [] if setuid else ["A28"],
        }
        (base / "tools" / "targets.json").write_text(json.dumps(description))
        yield Targets(base, account, victims)


def make_files(base: Path, secret: str) -> dict[str, Path]:
    """Create all directories and files, and return their paths."""
    files = {
        "github_token": "data/credentials/github-token",
        "api_secret": "data/api-secret",
        "own_mirror": "repos/own.git",
        "other_mirror": "repos/other.git",
        "other_worktree": "worktrees/other",
        "other_transcript": "sessions/other/projects/x/session.jsonl",
        "product": "product",
        "operator_home": "operator",
        "shared_file": "shared/file",
        "store": "data/orchestrator.db",
        "temporal_database": "data/temporal.db",
        "scratch": "job/scratch",
        "repository": "job/repository",
    }
    contents = {
        "data/credentials/github-token": "canary-token",
        "data/api-secret": secret,
        "repos/own.git/config": "[core]\n",
        "repos/own.git/refs/heads/main": "0" * 40,
        "repos/own.git/objects/canary": "blob",
        "repos/other.git/packed-refs": "canary-mirror",
        "worktrees/other/source.py": "# canary-source",
        "sessions/other/projects/x/session.jsonl": "canary-conversation\n",
        "product/worker.py": "# code\n",
        "operator/.ssh/id_ed25519": "canary-key",
        "operator/.bashrc": "# shell\n",
        "operator/.claude/.credentials.json": "canary-login",
        "shared/file": "canary-neighbour\n",
        "job/home/.profile": "",
        "job/tmp/empty": "",
        "job/scratch/empty": "",
    }
    for name, content in contents.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    make_database(base / files["store"])
    make_database(base / files["temporal_database"])
    subprocess.run(["git", "init", "--quiet", base / files["repository"]], check=True)
    (base / "tools").mkdir()
    shutil.copy(HERE / "inside.py", base / "tools")
    shutil.copy(HERE / "worker.py", base)
    return {name: base / path for name, path in files.items()}


def make_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE jobs (id TEXT, title TEXT, result TEXT)")
        database.execute("INSERT INTO jobs VALUES ('neighbour', 'canary-title', 'result')")
        database.commit()


def make_setuid_program(directory: Path, account: Account) -> dict[str, object]:
    """Create a setuid program of another user. Only root can, and only on some disks."""
    if os.geteuid() != 0 or os.statvfs(directory).f_flag & os.ST_NOSUID:
        return {}
    other = 65_534 if account.is_root else 0
    program = directory / "id-of-another"
    shutil.copy("/usr/bin/id", program)
    os.chown(program, other, other)
    program.chmod(0o4755)
    return {"setuid_program": str(program), "setuid_uid": other}


def start_worker(
    base: Path, account: Account, secret: str, running: contextlib.ExitStack
) -> tuple[subprocess.Popen[bytes], dict[str, object]]:
    sockets = {"named_socket": str(base / "data" / "socket"), "abstract_socket": str(base)}
    process = running.enter_context(
        subprocess.Popen(
            [PYTHON, "-I", "-S", str(base / "worker.py"), *sockets.values()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"GITHUB_TOKEN": "canary-token", "AGENT_API_SECRET": secret},
            **account.popen,
        )
    )
    # The services run until the process is killed, even without connections.
    running.callback(process.kill)
    assert process.stdout is not None
    return process, {**json.loads(process.stdout.readline()), **sockets}


def start_victim(account: Account, running: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    process = running.enter_context(subprocess.Popen(["/bin/sleep", "600"], **account.popen))
    running.callback(process.kill)
    return process


def identity(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """Return process id and start time, which together are unique."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return {"pid": process.pid, "started": int(fields[19])}


def of_the_machine() -> dict[str, object]:
    """Return files of the host that only root can open."""
    devices = [path for path in sorted(Path("/dev").iterdir()) if is_disk(path)]
    cron = Path("/etc/cron.d")
    return {
        "devices": [str(path) for path in devices],
        "kernel_parameter": "/proc/sys/kernel/core_pattern",
        "cron_directory": str(cron if cron.is_dir() else cron.parent),
        "system_configuration": "/etc/passwd",
    }


def is_disk(path: Path) -> bool:
    return stat.S_ISBLK(path.stat(follow_symlinks=False).st_mode)


def of_the_limits(limits: Limits) -> dict[str, object]:
    return {
        "process_limit": limits.processes,
        "memory_limit": limits.memory,
        "file_limit": limits.file,
        "hold_seconds": limits.hold_seconds,
    }
