from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.claude.arguments import Launch
from agent.claude.environment import child_environment
from agent.claude.executable import find_executable
from agent.claude.process import ClaudeProcess
from agent.claude.session_files import SessionFiles, usage_so_far
from agent.message_queue import MessageQueue, UserMessage
from agent.process.marker import Marker
from agent.protocol import AgentLine
from agent.turn import TurnReport, run_turn
from domain.jobs import JobType
from fakes.anthropic.server import RecordedRequest, ScriptedModel
from fakes.anthropic.steps import Step

MODEL = "claude-opus-5-5"
SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass
class Lines:
    """Collects the lines of a turn."""

    all: list[AgentLine] = field(default_factory=list)

    async def __call__(self, line: AgentLine) -> None:
        self.all.append(line)

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.all)


@dataclass
class ScriptedJob:
    """The directories and the scripted model of a job, with shortcuts to run it."""

    executable: Path
    model: ScriptedModel
    base: Path
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    passed: dict[str, str] = field(default_factory=dict)
    changes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for directory in (self.cwd, self.home, self.config_dir):
            directory.mkdir()
        self.marker = Marker("data", "boot", self.name)

    @property
    def cwd(self) -> Path:
        return self.base / "worktree"

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def config_dir(self) -> Path:
        return self.base / "claude"

    @property
    def environment(self) -> dict[str, str]:
        credential = self.passed or {"ANTHROPIC_API_KEY": "test-key"}
        environment = child_environment(
            {"ANTHROPIC_BASE_URL": self.model.url_for(self.name), **credential},
            search_path=SEARCH_PATH,
            home=self.home,
            config_dir=self.config_dir,
            marker=self.marker,
            identity={
                "GIT_AUTHOR_NAME": "A",
                "GIT_AUTHOR_EMAIL": "a@example.com",
                "GIT_COMMITTER_NAME": "A",
                "GIT_COMMITTER_EMAIL": "a@example.com",
            },
            temporary=self.base / "tmp",
        )
        return {**environment, **self.changes}

    def script(self, *steps: Step) -> None:
        self.model.script(self.name, steps)

    @property
    def requests(self) -> list[RecordedRequest]:
        return [request for request in self.model.requests(self.name) if request["main"]]

    def launch(self, job_type: JobType = JobType.CODE, **changes: object) -> Launch:
        fields: dict[str, object] = {
            "job_type": job_type,
            "session_id": self.session_id,
            "resume": False,
            "model": MODEL,
            "max_turns": 50,
            "max_budget_usd": None,
            "system_prompt": "Rules of the house.",
            "mcp_config": None,
            "mcp_servers": (),
            "task_tools": (),
        }
        return Launch(**{**fields, **changes})  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def process(self, launch: Launch | None = None) -> AsyncIterator[ClaudeProcess]:
        chosen = launch or self.launch()
        session = SessionFiles.of(self.environment, self.cwd, chosen.session_id)
        used = usage_so_far(session.read() or b"") if chosen.resume else None
        async with await ClaudeProcess.start(
            self.executable, chosen, self.environment, self.cwd, used_before=used
        ) as process:
            yield process

    async def turn(
        self,
        text: str,
        launch: Launch | None = None,
        *,
        keep_open: bool = False,
        lines: Lines | None = None,
        queue: MessageQueue | None = None,
        exit_timeout: float = 10.0,
        silence: float | None = None,
    ) -> TurnReport:
        """Run a turn with one initial message."""
        async with self.process(launch) as process:
            return await run_turn(
                process,
                [user_message(text)],
                keep_open=keep_open,
                on_line=Lines() if lines is None else lines,
                queue=queue or MessageQueue(),
                exit_timeout=exit_timeout,
                silence=silence,
            )


def user_message(text: str) -> UserMessage:
    return UserMessage(str(uuid.uuid4()), text)


@pytest.fixture(scope="session")
def scripted_model() -> Iterator[ScriptedModel]:
    with ScriptedModel().serve() as model:
        yield model


@pytest.fixture
def job(scripted_model: ScriptedModel, tmp_path: Path) -> Iterator[ScriptedJob]:
    executable = find_executable(None, "")
    made = ScriptedJob(executable, scripted_model, tmp_path)
    yield made
    assert processes_of(made.marker) == []


@pytest.fixture
def fake_job(
    scripted_model: ScriptedModel, tmp_path: Path
) -> Iterator[Callable[[str], ScriptedJob]]:
    """Make a job whose executable is a Python script with the given body."""
    jobs = []

    def make(body: str) -> ScriptedJob:
        executable = tmp_path / "fake-claude"
        executable.write_text(f"#!/usr/bin/env -S python3 -u\n{body}")
        executable.chmod(0o755)
        jobs.append(ScriptedJob(executable, scripted_model, tmp_path))
        return jobs[-1]

    yield make
    for made in jobs:
        assert processes_of(made.marker) == []


def processes_of(marker: Marker) -> list[int]:
    """Return the running processes that have a marker."""
    wanted = f"ORCHESTRATOR_RUN={marker}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                pids.append(int(entry.name))
    return pids


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def until(check: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "The condition was not met in time."
        await asyncio.sleep(0.02)


def git(cwd: Path, *arguments: str) -> str:
    environment = {"PATH": SEARCH_PATH, "HOME": os.fspath(cwd), "GIT_CONFIG_NOSYSTEM": "1"}
    done: Sequence[str] = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(
        done, cwd=cwd, env=environment, check=True, capture_output=True, text=True
    ).stdout
