"""The life of an installation under Compose, in a network namespace of its own.

`python -m tests.compose` starts this program in the namespace. It prints each step with its time,
and ends at the first step that fails.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from fakes.anthropic.server import ScriptedModel, Step
from fakes.github.server import FakeGitHub
from fakes.github.tokens import TokenGrant
from tests.compose.engine import GATEWAY, Engine, running_engine
from tests.unit.store.supabase.project import SupabaseProject, running_project

ROOT = Path(__file__).parents[2]
GITHUB_TOKEN = "ghs_composeTokenThatMustNotLeak012345678"
API_SECRET = "compose-secret-that-must-not-leak"
MODEL_KEY = "model-key-that-must-not-leak"
SECRETS = (GITHUB_TOKEN, API_SECRET, MODEL_KEY, SupabaseProject.key)
UP_SECONDS = 300.0
JOB_SECONDS = 150.0

Json = dict[str, Any]


class Installation:
    """The services of docker-compose.yml, with what they reach outside."""

    def __init__(self, engine: Engine, directory: Path, github: FakeGitHub, model: ScriptedModel):
        self.engine = engine
        self.directory = directory
        self.github = github
        self.model = model
        self.http = httpx.Client(
            base_url="http://127.0.0.1:3456",
            headers={"Authorization": f"Bearer {API_SECRET}"},
            timeout=30,
            trust_env=False,
        )

    def configure(self, supabase_url: str) -> None:
        """Write the .env file, the secrets and the network as an operator would."""
        secrets = self.directory / "secrets"
        secrets.mkdir(mode=0o755)
        for name, text in {
            "agent-api-secret": API_SECRET,
            "claude-credential": MODEL_KEY,
            "github-token": GITHUB_TOKEN,
            "supabase-service-role-key": SupabaseProject.key,
        }.items():
            (secrets / name).write_text(text + "\n")
        settings = {
            "SUPABASE_URL": supabase_url,
            "TEMPORAL_POSTGRES_PASSWORD": "password",
            "GITHUB_SERVER_URL": self.github.url,
            "GITHUB_API_URL": f"{self.github.url}/api",
            "ANTHROPIC_BASE_URL": self.model.base_url,
            "CLAUDE_MODEL": "claude-opus-5-5",
            "DRAIN_TIMEOUT_SECONDS": "5",
        }
        lines = (f"{name}={value}\n" for name, value in settings.items())
        (self.directory / ".env").write_text("".join(lines))
        # Compose resolves the paths of secrets from here, and those of our file from its own place.
        for name in ("docker-compose.yml", "deploy"):
            (self.directory / name).symlink_to(ROOT / name)
        subnet = {"subnet": "172.31.240.0/24", "gateway": GATEWAY}
        network = {"networks": {"default": {"ipam": {"config": [subnet]}}}}
        (self.directory / "docker-compose.override.yml").write_text(json.dumps(network))

    def compose(self, *arguments: str, seconds: float = UP_SECONDS) -> str:
        """Run `docker compose` in the directory of the installation."""
        place = ("--project-directory", str(self.directory), "--project-name", "orchestrator")
        return self.engine.run("compose", *place, *arguments, seconds=seconds)

    def up(self, *services: str) -> None:
        """Start services, and wait until they are healthy."""
        self.compose("up", "--no-build", "--pull", "never", "--detach", "--wait", *services)

    def inside(self, service: str, *command: str) -> str:
        """Run a command in the container of a service."""
        return self.compose("exec", "--no-TTY", service, *command)

    def call(self, method: str, path: str, body: Any = None) -> Json:
        """Call the API, which must accept the request."""
        response = self.http.request(method, path, json=body)
        assert response.status_code in (200, 201), f"{method} {path}: {response.text}"
        answer: Json = response.json()
        return answer

    def post(self, steps: list[Step]) -> str:
        """Post a code job of a new client whose Claude takes these steps."""
        name = f"site-{uuid.uuid4().hex[:6]}"
        self.github.create_repository("acme", name, {"README.md": "# Site\n"})
        client = self.call("POST", "/clients", {"name": name})["id"]
        repository = {"githubOrg": "acme", "githubRepo": name}
        self.call("POST", f"/clients/{client}/repository", repository)
        self.model.script(name, steps)
        job = {"clientId": client, "jobType": "code", "branchName": "feature/x"}
        return str(self.call("POST", "/jobs", {**job, "prompt": f"[[script:{name}]]"})["id"])

    def wait(self, job_id: str, reached: Callable[[Json], bool], seconds: float) -> Json:
        """Return the job once it is as the function says."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                job = self.call("GET", f"/jobs/{job_id}")
                if reached(job):
                    return job
                assert time.monotonic() < deadline, job
            time.sleep(0.2)

    def completed(self, job_id: str) -> Json:
        """Return the job once it has ended, which must be well."""
        ended = {"completed", "failed", "cancelled"}
        job = self.wait(job_id, lambda job: job["status"] in ended, JOB_SECONDS)
        assert job["status"] == "completed", job
        assert job["pr_url"], job
        return job

    def works(self, job_id: str) -> Json:
        """Return the job once its Claude has begun to work."""
        return self.wait(job_id, lambda job: job["phase"] == "working", JOB_SECONDS)


def writing(name: str) -> Step:
    """A step in which Claude writes a file."""
    return {"tools": [["Bash", {"command": f"echo done > {name}"}]]}


def waiting(seconds: int) -> Step:
    """A step in which Claude's command takes a while."""
    return {"tools": [["Bash", {"command": f"sleep {seconds}"}]]}


DONE: Step = {"text": "Done."}


def starts(installation: Installation) -> None:
    """All services become healthy."""
    installation.up()


def keeps_secrets(installation: Installation) -> None:
    """No process of the containers has a secret in its environment, and no image has one."""
    for service in ("api", "worker"):
        read = "cat /proc/[0-9]*/environ"
        environments = installation.inside(service, "sh", "-c", read)
        assert not [secret for secret in SECRETS if secret in environments], service


def contains(installation: Installation) -> None:
    """The sandbox is on, and doctor finds it whole, inside the container."""
    sandbox = installation.call("GET", "/health")["sandbox"]
    assert (sandbox["mode"], sandbox["ok"]) == ("on", True), sandbox
    found = installation.inside("worker", "orchestrator", "doctor")
    assert "problem" not in found.lower(), found


def completes_a_job(installation: Installation) -> None:
    """A code job opens its pull request."""
    installation.completed(installation.post([writing("a.txt"), DONE]))


def shows_the_ui_to_its_own_pages(installation: Installation) -> None:
    """The Temporal UI answers under its own name, and under no other."""
    url = "http://127.0.0.1:8233/"
    assert httpx.get(url, trust_env=False).status_code == 200
    assert httpx.get(url, headers={"Host": "evil.test"}, trust_env=False).status_code == 421


def survives_a_new_container(installation: Installation) -> None:
    """A job goes on after its worker was drained and made again."""
    job = installation.post([waiting(12), writing("b.txt"), DONE])
    installation.works(job)
    installation.compose("rm", "--stop", "--force", "worker")
    installation.up("worker")
    installation.completed(job)


def survives_a_kill(installation: Installation) -> None:
    """A job goes on after its worker was killed."""
    job = installation.post([waiting(12), writing("c.txt"), DONE])
    installation.works(job)
    installation.compose("kill", "worker")
    installation.up("worker")
    installation.completed(job)


def survives_temporal(installation: Installation) -> None:
    """A job that is posted while Temporal is away completes once it is back."""
    installation.compose("stop", "temporal")
    job = installation.post([writing("d.txt"), DONE])
    installation.up("temporal")
    installation.completed(job)


STEPS = (
    starts,
    keeps_secrets,
    contains,
    completes_a_job,
    shows_the_ui_to_its_own_pages,
    survives_a_new_container,
    survives_a_kill,
    survives_temporal,
)


@contextlib.contextmanager
def relayed(url: str) -> Iterator[str]:
    """Offer a server of 127.0.0.1 to the containers, under the same port."""
    port = urlsplit(url).port or 80
    listener = socket.create_server((GATEWAY, port))
    threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
    try:
        yield f"http://{GATEWAY}:{port}"
    finally:
        listener.close()


@contextlib.contextmanager
def refusing_names() -> Iterator[None]:
    """Serve DNS that knows no name. Without an answer, each lookup would take 10 s."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((GATEWAY, 53))
    threading.Thread(target=_refuse_names, args=(server,), daemon=True).start()
    try:
        yield
    finally:
        server.close()


def _refuse_names(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            query, client = server.recvfrom(4096)
            # The same question, as a response (RFC 1035, section 4.1.1) with "no such name".
            server.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:], client)


def _accept(listener: socket.socket, port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def main(data: Path, directory: Path) -> int:
    """Run all steps with the images in `data`; returns the exit code."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # The address exists before the network of the containers, so that servers can listen on it.
    subprocess.run(["ip", "addr", "add", f"{GATEWAY}/32", "dev", "lo"], check=True)
    with contextlib.ExitStack() as stack:
        github = FakeGitHub(directory / "github", {GITHUB_TOKEN: TokenGrant("bot")})
        stack.enter_context(github.serve())
        model = stack.enter_context(ScriptedModel().serve())
        project = stack.enter_context(running_project(directory))
        github.url = stack.enter_context(relayed(github.url))
        model.base_url = stack.enter_context(relayed(model.base_url))
        supabase_url = stack.enter_context(relayed(project.url))
        stack.enter_context(refusing_names())
        engine = stack.enter_context(running_engine(data))
        installation = Installation(engine, directory, github, model)
        installation.configure(supabase_url)
        stack.callback(installation.compose, "down", "--volumes", "--timeout", "10")
        for step in STEPS:
            begin = time.monotonic()
            try:
                step(installation)
            except BaseException:
                sys.stdout.write(installation.compose("logs", "--tail", "60"))
                raise
            sys.stdout.write(f"{time.monotonic() - begin:6.1f} s  {step.__doc__}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
