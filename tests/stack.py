"""The whole product on this host, as `orchestrator up` runs it, for tests that go through HTTP.

The fake GitHub replaces GitHub and the scripted model replaces Anthropic. Everything else is real:
the Temporal dev server, the API and worker processes, git over HTTP, and the Claude CLI.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from fakes.anthropic.default_replies import reply
from fakes.anthropic.server import ScriptedModel, Step
from fakes.github.server import FakeGitHub
from fakes.github.tokens import TokenGrant
from fakes.ports import free_ports

ROOT = Path(__file__).parent.parent
TOKEN = "ghs_stackTokenThatMustNotLeak0123456789"
OWNER = "acme"
START_SECONDS = 40.0
STOP_SECONDS = 45.0

Json = dict[str, Any]


def eventually(reached: Callable[[], Any], seconds: float = 30.0, what: str = "") -> Any:
    """The first true value of `reached`, polled until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = reached()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or reached}"
        time.sleep(0.05)


class Stack:
    """One running installation with its own directory, ports, fake GitHub and model."""

    def __init__(
        self, root: Path, github: FakeGitHub, github_url: str, model: ScriptedModel
    ) -> None:
        self.root = root
        self.github = github
        self.model = model
        self.log = root / "up.log"
        self.signal_files = root / "signal_files"
        self.signal_files.mkdir(exist_ok=True)
        api, temporal, temporal_http, ui = free_ports(4)
        self.url = f"http://127.0.0.1:{api}"
        self.ui_url = f"http://127.0.0.1:{ui}"
        self.temporal_address = f"127.0.0.1:{temporal}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "DATA_DIR": str(root / "data"),
            "PORT": str(api),
            "TEMPORAL_PORT": str(temporal),
            "TEMPORAL_HTTP_PORT": str(temporal_http),
            "TEMPORAL_UI_PORT": str(ui),
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_SERVER_URL": github_url,
            "GITHUB_API_URL": f"{github_url}/api",
            "ANTHROPIC_BASE_URL": model.base_url,
            "ANTHROPIC_API_KEY": "model-key",
            "CLAUDE_MODEL": "claude-opus-5-5",
            "DRAIN_TIMEOUT_SECONDS": "5",
            "SANDBOX_READ": str(self.signal_files),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        self._repositories = 0

    @property
    def secret(self) -> str:
        return (self.root / "data" / "api-secret").read_text().strip()

    def start(self, **environment: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "cli.py"), "up"],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(self.is_healthy, START_SECONDS, "healthy; see " + str(self.log))
        self.http.headers["Authorization"] = f"Bearer {self.secret}"

    def is_healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise
        self.process = None

    def pids(self, words: str) -> list[int]:
        """Processes of this installation whose command line has `words`."""
        assert self.process is not None
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdigit():
                    continue
                command = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                environ = (entry / "environ").read_bytes().decode(errors="replace")
                if words in command and str(self.root) in environ + command:
                    found.append(int(entry.name))
        return found

    def call(
        self, method: str, path: str, body: Any = None, status: int | tuple[int, ...] | None = None
    ) -> Json:
        response = self.http.request(method, path, json=body)
        expected = status if status is not None else (200, 201)
        allowed = expected if isinstance(expected, tuple) else (expected,)
        assert response.status_code in allowed, f"{method} {path}: {response.text}"
        answer: Json = response.json()
        return answer

    def new_repository(self, **options: Any) -> tuple[str, str]:
        """A client with its own repository on the fake GitHub: (client id, repository name)."""
        self._repositories += 1
        name = f"site-{self._repositories}-{uuid.uuid4().hex[:6]}"
        options.setdefault("files", {"README.md": "# Site\n", "app.py": "print('hi')\n"})
        self.github.create_repository(OWNER, name, **options)
        client = self.call("POST", "/clients", {"name": f"Client {name}"})
        self.call(
            "POST", f"/clients/{client['id']}/repository", {"githubOrg": OWNER, "githubRepo": name}
        )
        return client["id"], name

    def signal_file(self) -> Path:
        """Return a path that does not exist yet; commands of a job can wait for the file."""
        return self.signal_files / uuid.uuid4().hex

    def script(self, steps: list[Step], **options: Any) -> str:
        """Script a conversation. Its prompt must contain the returned text."""
        name = f"script-{uuid.uuid4().hex[:8]}"
        self.model.script(name, steps, **options)
        return f"[[script:{name}]]"

    def post_job(self, client_id: str, prompt: str, **body: Any) -> str:
        body.setdefault("jobType", "code")
        if body["jobType"] == "code":
            body.setdefault("branchName", f"feature/{uuid.uuid4().hex[:8]}")
        job = self.call("POST", "/jobs", {"clientId": client_id, "prompt": prompt, **body}, 201)
        return str(job["id"])

    def job(self, job_id: str) -> Json:
        return self.call("GET", f"/jobs/{job_id}")

    def messages(self, job_id: str) -> list[Json]:
        found: list[Json] = self.call("GET", f"/jobs/{job_id}?includeMessages=true")["messages"]
        return found

    def wait_for(
        self, job_id: str, reached: Callable[[Json], bool] | str, seconds: float = 60.0
    ) -> Json:
        """Wait for a status, a phase or a condition, and return the job."""

        def there() -> Json | None:
            job = self.job(job_id)
            if callable(reached):
                return job if reached(job) else None
            final = job["status"] in {"completed", "failed", "cancelled"}
            assert not final or reached == job["status"], f"{job['status']}: {job['error']}"
            return job if reached in {job["status"], job["phase"]} else None

        found: Json = eventually(there, seconds, f"{reached}; the job is {self.job(job_id)}")
        return found


@contextlib.contextmanager
def running_stack(root: Path, **environment: str) -> Iterator[Stack]:
    """Start an installation, and stop all its processes at the end."""
    root.mkdir(parents=True, exist_ok=True)
    github = FakeGitHub(root / "github", {TOKEN: TokenGrant("stack-user")})
    with github.serve() as url, ScriptedModel(story=reply).serve() as model:
        stack = Stack(root, github, url, model)
        try:
            stack.start(**environment)
            yield stack
        finally:
            stack.stop()
            stack.http.close()
