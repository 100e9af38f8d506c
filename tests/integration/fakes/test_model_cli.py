from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.anthropic.default_replies import reply
from fakes.anthropic.server import ScriptedModel, Step


def bundled_cli() -> Path:
    spec = importlib.util.find_spec("claude_agent_sdk")
    root = Path(spec.origin).parent if spec and spec.origin else Path("missing")
    return root / "_bundled" / "claude"


CLI = bundled_cli()
CODE_TOOLS = "Bash,Edit,Write,Read,Glob,Grep"
pytestmark = pytest.mark.skipif(not CLI.exists(), reason="The Claude Code CLI is not bundled.")


class Session:
    """A Claude Code session in a separate git repository."""

    def __init__(self, root: Path, url: str, **environment: str) -> None:
        self.id = str(uuid.uuid4())
        self.repository = root / "repository"
        self.repository.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", str(self.repository)], check=True)
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "CLAUDE_CONFIG_DIR": str(root / "claude"),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "test-key",
            "IS_SANDBOX": "1",
            "LANG": "C.UTF-8",
            "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "2",
            "DISABLE_AUTOUPDATER": "1",
            **environment,
        }

    def start(self, *, resume: bool = False, tools: str = CODE_TOOLS) -> subprocess.Popen[bytes]:
        arguments = "-p --output-format stream-json --verbose --setting-sources user".split()
        arguments += "--strict-mcp-config --permission-mode bypassPermissions".split()
        arguments += ["--model", "claude-opus-5-5", "--tools", tools]
        return subprocess.Popen(
            [CLI, *arguments, "--resume" if resume else "--session-id", self.id],
            env=self._environment,
            cwd=self.repository,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, prompt: str, **options: Any) -> tuple[int, dict[str, Any]]:
        return finish(self.start(**options), prompt)


def finish(process: subprocess.Popen[bytes], prompt: str) -> tuple[int, dict[str, Any]]:
    with process:
        try:
            out, err = process.communicate(prompt.encode(), timeout=60)
        finally:
            process.terminate()
    lines = [json.loads(line) for line in out.split(b"\n") if line]
    assert lines, err
    assert lines[-1]["type"] == "result"
    return process.returncode, lines[-1]


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(reply).serve() as running:
        yield running


def test_a_code_run_writes_and_commits(model: ScriptedModel, tmp_path: Path) -> None:
    commit = "git add -A && git -c user.name=a -c user.email=a@example.com commit -qm add"
    url = model.script(
        "code",
        [
            {
                "thinking": "A file, then.",
                "text": "I'll write it",
                "tools": [["Write", {"file_path": "$CWD/a.txt", "content": "hi\n"}]],
            },
            {"tools": [["Bash", {"command": commit}], ["Read", {"file_path": "$CWD/a.txt"}]]},
            {"text": "Done."},
        ],
    )
    session = Session(tmp_path, url)
    code, result = session.run("Write a file")
    assert (code, result["result"], result["is_error"]) == (0, "Done.", False)
    log = ["git", "-C", str(session.repository), "show", "--name-only", "--format=%s", "HEAD"]
    assert subprocess.check_output(log, text=True).split() == ["add", "a.txt"]
    requests = model.requests("code")
    assert (len(requests), model.remaining("code")) == (3, 0)
    assert requests[0]["headers"]["x-api-key"] == "test-key"
    assert requests[0]["headers"]["x-claude-code-session-id"] == session.id
    assert requests[0]["body"]["model"] == "claude-opus-5-5"
    results = [block["type"] for block in requests[2]["body"]["messages"][-1]["content"]]
    assert results[:2] == ["tool_result", "tool_result"]


def test_a_resumed_session_continues_its_script(model: ScriptedModel, tmp_path: Path) -> None:
    model.script("talk", [{"text": "Which color?"}, {"text": "Blue it is."}])
    session = Session(tmp_path, model.base_url)
    assert session.run("Paint it [[script:talk]]")[1]["result"] == "Which color?"
    code, result = session.run("Blue", resume=True)
    assert (code, result["result"], result["session_id"]) == (0, "Blue it is.", session.id)
    history = json.dumps(model.requests("talk")[1]["body"]["messages"])
    assert history.index("Paint it") < history.index("Which color?") < history.index("Blue")
    assert model.remaining("talk", session.id) == 0


def test_an_overload_is_retried_and_takes_a_step(model: ScriptedModel, tmp_path: Path) -> None:
    url = model.script("busy", [{"status": 529}, {"text": "At last."}])
    code, result = Session(tmp_path, url).run("Hello")
    assert (code, result["result"]) == (0, "At last.")
    assert (len(model.requests("busy")), model.remaining("busy")) == (2, 0)


def test_a_refused_key_ends_the_run(model: ScriptedModel, tmp_path: Path) -> None:
    step: Step = {"status": 401, "message": "invalid x-api-key"}
    url = model.script("locked", [step], repeat_last=True)
    code, result = Session(tmp_path, url, CLAUDE_CODE_MAX_RETRIES="1").run("Hello")
    assert (code, result["is_error"], result["api_error_status"]) == (1, True, 401)
    assert len(model.requests("locked")) == 2


def test_a_truncated_stream_is_requested_again(model: ScriptedModel, tmp_path: Path) -> None:
    url = model.script("cut", [{"text": "Partly", "drop": "mid"}, {"text": "Whole."}])
    code, result = Session(tmp_path, url).run("Hello")
    assert (code, result["result"]) == (0, "Whole.")
    assert model.remaining("cut") == 0


def test_two_sessions_use_one_script_at_once(model: ScriptedModel, tmp_path: Path) -> None:
    write = ["Write", {"file_path": "$CWD/a.txt", "content": "hi\n"}]
    model.script("both", [{"tools": [write]}, {"text": "Done."}])
    sessions = [Session(tmp_path / name, model.base_url) for name in ("one", "two")]
    with contextlib.ExitStack() as running:
        processes = [running.enter_context(session.start()) for session in sessions]
        ends = [finish(process, "Write [[script:both]]") for process in processes]
    assert [(code, result["result"]) for code, result in ends] == [(0, "Done.")] * 2
    assert all((session.repository / "a.txt").exists() for session in sessions)
    assert [model.remaining("both", session.id) for session in sessions] == [0, 0]


def test_the_default_replies_complete_a_code_run_and_a_task(
    model: ScriptedModel, tmp_path: Path
) -> None:
    session = Session(tmp_path / "code", model.base_url)
    for resume in (False, True):
        code, result = session.run("Add a logout button", resume=resume)
        assert (code, result["result"][:13]) == (0, "I wrote notes")
    (note,) = (session.repository / "notes").iterdir()
    assert "# Add a logout button" in note.read_text()
    task = Session(tmp_path / "task", model.base_url)
    (task.repository / "README.md").write_text("# The Shop\n")
    asked = task.run("What is this?", tools="Read,Grep,Glob")[1]["result"]
    assert asked.startswith("The README begins with “The Shop”.")
    answered = task.run("For admins", tools="Read,Grep,Glob", resume=True)[1]["result"]
    assert "For admins" in answered
