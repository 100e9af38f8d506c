"""`orchestrator demo`: both walkthroughs of the API on the real product, without accounts.

Everything is as in `orchestrator up`. The fake GitHub replaces GitHub and the scripted model
replaces Anthropic. The demo uses a directory and ports of its own and removes both at the end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from commands.up import up
from domain.errors import DependencyFailed
from fakes.anthropic.default_replies import reply
from fakes.anthropic.server import ScriptedModel
from fakes.github.server import FakeGitHub
from fakes.github.tokens import TokenGrant
from fakes.ports import free_ports
from settings import Settings

OWNER, NAME = "demo", "greeter"
TOKEN = "demo-token"
JOB_SECONDS = 60.0
"""Time limit for each step of a job; a whole job takes a few seconds."""

REQUEST_SECONDS = 30.0
"""Time limit of one request, generous for a slow host."""

POLL_SECONDS = 0.1
FILES = {
    "README.md": "# Greeter\n\nPrints a greeting.\n",
    "greet.py": 'print("Hello")\n',
}

Say = Callable[[str], None]


def demonstrate(environment: Mapping[str, str], say: Say) -> int:
    """Run one code job and one conversation, print their results, return 0.

    Raises:
        DependencyFailed: a job did not complete. The message has its status and error.
    """
    with tempfile.TemporaryDirectory(prefix="orchestrator-demo-") as name:
        root = Path(name)
        github = FakeGitHub(root / "github", {TOKEN: TokenGrant("demo-user")})
        github.create_repository(OWNER, NAME, files=FILES)
        with github.serve() as github_url, ScriptedModel(story=reply).serve() as model:
            ours = _environment(environment, root, github_url, model.base_url)
            settings = Settings.from_env(ours)
            return up(
                settings,
                ours,
                say,
                lambda secret: _Walkthroughs(settings, github, secret, say).run(),
            )


def _environment(
    environment: Mapping[str, str], root: Path, github_url: str, model_url: str
) -> dict[str, str]:
    names = ("PORT", "TEMPORAL_PORT", "TEMPORAL_HTTP_PORT", "TEMPORAL_UI_PORT")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    return {
        "PATH": environment.get("PATH", ""),
        "HOME": str(root),
        "DATA_DIR": str(root / "data"),
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_SERVER_URL": github_url,
        "GITHUB_API_URL": f"{github_url}/api",
        "ANTHROPIC_BASE_URL": model_url,
        "ANTHROPIC_API_KEY": "demo-key",
        "CLAUDE_MODEL": "claude-opus-5-5",
        **{name: str(port) for name, port in ports.items()},
    }


class _Walkthroughs:
    """The two walkthroughs, through the HTTP API."""

    def __init__(self, settings: Settings, github: FakeGitHub, secret: str, say: Say) -> None:
        self._github = github
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{settings.api.port}",
            headers={"Authorization": f"Bearer {secret}"},
            timeout=REQUEST_SECONDS,
            trust_env=False,
        )
        self._say = say

    def run(self) -> int:
        with self._http:
            client = self._call("POST", "/clients", {"name": "Demo"})
            self._call(
                "POST",
                f"/clients/{client['id']}/repository",
                {"githubOrg": OWNER, "githubRepo": NAME},
            )
            self._code_job(client["id"])
            self._conversation(client["id"])
        return 0

    def _code_job(self, client_id: str) -> None:
        self._title("A code job")
        job_id = self._post_job(
            clientId=client_id,
            prompt="Note that the greeting should take a name.",
            branchName="feature/name",
            jobType="code",
        )
        job = self._await(job_id, lambda job: job["status"] == "completed")
        self._show_transcript(job_id)
        self._title("Its pull request")
        [pull] = self._github.pull_requests(OWNER, NAME)
        self._say(f"{job['pr_url']}\n{pull.title}\n\n{pull.body}")
        self._title("Its diff")
        self._say(self._github.repository(OWNER, NAME).bare.diff(pull.base_sha, pull.head_sha))

    def _conversation(self, client_id: str) -> None:
        self._title("A conversation")
        job_id = self._post_job(
            clientId=client_id, prompt="What does this repository do?", jobType="task"
        )
        self._await(job_id, lambda job: job["phase"] == "waiting_for_user")
        self._call("POST", f"/jobs/{job_id}/message", {"message": "Which file prints it?"})
        self._await(job_id, lambda job: self._answers(job_id) == 2)
        self._call("POST", f"/jobs/{job_id}/complete")
        self._await(job_id, lambda job: job["status"] == "completed")
        self._show_transcript(job_id)

    def _post_job(self, **body: str) -> str:
        job = self._call("POST", "/jobs", body)
        self._say(f"POST /jobs -> {job}")
        return str(job["id"])

    def _answers(self, job_id: str) -> int:
        messages = self._messages(job_id)
        return sum('"type":"result"' in message["content"] for message in messages)

    def _messages(self, job_id: str) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self._call("GET", f"/jobs/{job_id}/messages")["messages"]
        return messages

    def _show_transcript(self, job_id: str) -> None:
        for message in self._messages(job_id):
            self._say(f"  {message['seq']:>3} {message['type']:<10} {message['content'][:160]}")

    def _await(self, job_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + JOB_SECONDS
        while time.monotonic() < deadline:
            job = self._call("GET", f"/jobs/{job_id}")
            if reached(job):
                return job
            if job["status"] in {"failed", "cancelled"}:
                raise DependencyFailed(f"The demo's job {job['status']}: {job['error']}", "claude")
            time.sleep(POLL_SECONDS)
        raise DependencyFailed(
            f"The demo's job made no progress in {JOB_SECONDS:.0f} s. Run `orchestrator doctor`.",
            "claude",
        )

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        response = self._http.request(method, path, json=body)
        answer: dict[str, Any] = response.json()
        if response.is_error:
            raise DependencyFailed(f"{method} {path}: {answer['error']}", "temporal")
        return answer

    def _title(self, text: str) -> None:
        self._say(f"\n== {text}")
