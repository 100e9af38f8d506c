"""Jobs with the real CLI and a scripted model."""

from __future__ import annotations

import contextlib
import json
import uuid
from pathlib import Path
from typing import Any

from activities.claude import RunClaudeInput, RunClaudeResult
from domain.failures import TimeLimit
from domain.jobs import Job
from domain.messages import Message, MessageType, NewMessage
from domain.names.ids import derived_id
from fakes.anthropic.server import ScriptedModel, Step
from fakes.github.server import FakeGitHub
from tests.integration.activities.worker_host import Granted, WorkerHost
from tests.unit.store.samples import START, World, new_id


class Conversations:
    """Hosts that share a store, a fake GitHub and a script of the model."""

    def __init__(
        self, directory: Path, world: World, forge: FakeGitHub, model: ScriptedModel
    ) -> None:
        self._directory, self._world, self._forge = directory, world, forge
        self._model = model
        self._name = uuid.uuid4().hex

    def host(self, name: str = "first", *, is_subscription: bool = False) -> WorkerHost:
        credential = "CLAUDE_CODE_OAUTH_TOKEN" if is_subscription else "ANTHROPIC_API_KEY"
        credentials = {
            "ANTHROPIC_BASE_URL": self._model.url_for(self._name),
            credential: "test-key",
        }
        return WorkerHost(
            self._directory / name,
            self._world,
            self._forge,
            credentials=credentials,
        )

    def script(self, *steps: Step, **options: Any) -> None:
        """Set the next answers of the model, and clear its recorded requests."""
        self._model.script(self._name, steps, **options)

    @property
    def asked(self) -> list[str]:
        """The requests since the script was set, as JSON: system prompt and conversation."""
        return [json.dumps([body["system"], body["messages"]]) for body in self.asked_parts]

    @property
    def asked_parts(self) -> list[dict[str, Any]]:
        """The bodies of these requests."""
        requests = self._model.requests(self._name)
        return [request["body"] for request in requests if request["main"]]

    @property
    def models_asked(self) -> list[str]:
        """The model of each request."""
        requests = self._model.requests(self._name)
        return [request["body"]["model"] for request in requests if request["main"]]

    async def user_says(self, job: Job, text: str) -> str:
        """Store a message of the user and return its id."""
        message = NewMessage(new_id(), MessageType.USER_INPUT, text, START)
        await self._world.store.append_messages(job.id, [message])
        return message.id

    async def lines(self, job: Job) -> list[Message]:
        return await self._world.transcript(job)


def turn_input(
    granted: Granted, number: int = 1, attempt: int = 1, *message_ids: str
) -> RunClaudeInput:
    """Return the input of a turn, with a time limit that no test reaches."""
    return RunClaudeInput(granted.key, number, attempt, list(message_ids), 3600, TimeLimit.TURN)


async def turn(
    host: WorkerHost, granted: Granted, number: int = 1, attempt: int = 1, *message_ids: str
) -> RunClaudeResult:
    """Run one turn under the job's lease."""
    request = turn_input(granted, number, attempt, *message_ids)
    return await host.run(host.claude.run_claude, request)


def prompt_id(job: Job) -> str:
    """Return the id of a job's first message."""
    return derived_id(job.id, "prompt")


def transcript_file(host: WorkerHost, job: Job) -> Path:
    (found,) = (host.sessions / job.id).glob(f".claude/projects/*/{job.id}.jsonl")
    return found


def processes_of(job: Job) -> list[int]:
    """Return the running processes of a job."""
    wanted = f"ORCHESTRATOR_RUN=data/0123456789ab/{job.id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
