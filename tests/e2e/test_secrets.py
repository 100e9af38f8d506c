"""The GitHub token and the API secret are in no command line, file, message or history."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import Client as TemporalClient

from tests.e2e.processes import Process, processes, processes_of
from tests.e2e.steps import bash, say, use, wait_for_file, write
from tests.stack import OWNER, TOKEN, Stack, eventually, running_stack

CURIOUS = (
    "env; cat /proc/self/environ /proc/$PPID/environ | tr '\\0' '\\n'; git remote -v; "
    "git config --list --show-origin; cat .git; git fetch; git push origin HEAD:stolen; true"
)


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root: Path = tmp_path_factory.mktemp("secrets")
    token_file = root / "github-token"
    token_file.write_text(f"{TOKEN}\n")
    given = {"GITHUB_TOKEN": "", "GITHUB_TOKEN_FILE": str(token_file)}
    with running_stack(root, MAX_CONCURRENT_JOBS="3", **given) as stack:
        yield stack


def spellings(secret: str) -> list[bytes]:
    """Return the secret, and its fixed base64 text at each of the three offsets."""
    found = [secret.encode()]
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + secret.encode())
        found.append(encoded[4:-4])
    return found


def all_spellings(stack: Stack) -> list[bytes]:
    return spellings(TOKEN) + spellings(stack.secret)


def assert_clean(data: bytes, needles: list[bytes], where: str) -> None:
    assert not any(needle in data for needle in needles), f"a secret is in {where}"


def assert_processes_clean(stack: Stack) -> list[Process]:
    """Check every process of this host, and return the processes."""
    needles = all_spellings(stack)
    seen = list(processes())
    for process in seen:
        assert_clean(process.command, needles, f"the command line {process.command!r}")
        # Processes of another test's installation may have the same token in their environment.
        is_ours = str(stack.root).encode() in process.environment
        if is_ours or b"cli.py\0" not in process.command:
            where = f"the environment of {process.command!r}"
            assert_clean(process.environment, needles, where)
    return seen


def runs(command: bytes, process: Process, stack: Stack) -> bool:
    ours = str(stack.root).encode() in process.environment
    return ours and b"cli.py\0" + command in process.command


def assert_files_clean(stack: Stack) -> int:
    """Check every file below the stack's root, and return their number."""
    needles = all_spellings(stack)
    data = stack.root / "data"
    looked_at = 0
    for path in stack.root.rglob("*"):
        kept = (data / "api-secret", stack.root / "github-token")
        if path.is_relative_to(data / "credentials") or path in kept or not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        looked_at += 1
        if path == stack.log:
            content = without_announcement(content, stack)
        assert_clean(content, needles, str(path))
    return looked_at


def without_announcement(log: bytes, stack: Stack) -> bytes:
    """Remove the line that shows a new secret to its owner."""
    lines = log.split(b"\n")
    [announced] = [line for line in lines if line.startswith(b"Secret ")]
    assert stack.secret.encode() in announced
    lines.remove(announced)
    return b"\n".join(lines)


def assert_token_is_kept_closely(stack: Stack) -> None:
    directory = stack.root / "data" / "credentials"
    assert directory.stat().st_mode & 0o077 == 0
    for path in [*directory.iterdir(), stack.root / "data" / "api-secret"]:
        assert path.stat().st_mode & 0o077 == 0


async def histories(stack: Stack) -> dict[str, str]:
    temporal = await TemporalClient.connect(stack.temporal_address)
    return {
        found.id: (
            await temporal.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
        ).to_json()
        async for found in temporal.list_workflows()
    }


async def test_secrets_are_only_where_they_are_needed(own_stack: Stack, tmp_path: Path):
    signal_file = own_stack.signal_file()
    client, name = own_stack.new_repository()
    slow_client, slow_name = own_stack.new_repository()

    # A waiting conversation, a job whose Claude searches for secrets, and a job with a slow git.
    question = own_stack.script([use("Read", file_path="$CWD/app.py"), say("What now?")])
    task = own_stack.post_job(client, question, jobType="task")
    curious = own_stack.script(
        [bash(CURIOUS), write("a.txt", "a"), wait_for_file(signal_file), say("Looked around.")]
    )
    code = own_stack.post_job(client, curious, branchName="feature/x")
    own_stack.wait_for(task, "waiting_for_user")
    eventually((Path(own_stack.wait_for(code, "working")["worktree_path"]) / "a.txt").exists, 60)
    own_stack.github.delay_next(f"/{OWNER}/{slow_name}.git/git-upload-pack", 2)
    own_stack.github.delay_next(f"/{OWNER}/{slow_name}.git/git-receive-pack", 2)
    prompt = own_stack.script([write("b.txt", "b"), say("Done.")])
    slow = own_stack.post_job(slow_client, prompt, branchName="feature/y")

    for service in (b"fetch", b"push"):
        words = (service, slow_name.encode())

        def git_runs(words: tuple[bytes, ...] = words) -> bool:
            seen = assert_processes_clean(own_stack)
            return any(all(word in process.command for word in words) for process in seen)

        eventually(git_runs, 60, f"git runs with {words}")
    seen = assert_processes_clean(own_stack)
    # The search does find texts: the worker has the path of the token file.
    [worker] = [each for each in seen if runs(b"worker", each, own_stack)]
    assert b"GITHUB_TOKEN_FILE" in worker.environment
    [api] = [each for each in seen if runs(b"api", each, own_stack)]
    assert b"GITHUB_TOKEN" not in api.environment
    assert b"ANTHROPIC" not in api.environment
    assert sum(own_stack.root.name.encode() in each.environment for each in seen) > 5
    assert processes_of(code)
    own_stack.wait_for(slow, "completed")

    # Failures quote the output of git and GitHub; a cancelled job has used GitHub twice.
    grant = own_stack.github.tokens.pop(TOKEN)
    refused = own_stack.post_job(slow_client, prompt, branchName="feature/z")
    job = own_stack.wait_for(refused, "failed")
    assert job["failure_code"] == "github_authentication"
    own_stack.github.tokens[TOKEN] = grant
    assert_files_clean(own_stack)
    signal_file.touch()
    own_stack.wait_for(code, "completed")
    own_stack.call("POST", f"/jobs/{task}/cancel")
    own_stack.call("POST", "/repos/clone")

    assert list(own_stack.github.branches(OWNER, name)) == ["feature/x", "main"]
    needles = all_spellings(own_stack)
    for job_id in (task, code, slow, refused):
        messages = own_stack.messages(job_id)
        assert_clean(json.dumps(messages).encode(), needles, f"the messages of {job_id}")
        assert_clean(json.dumps(own_stack.job(job_id)).encode(), needles, f"the row of {job_id}")
    # The searching job did see its environment.
    looked = json.dumps(own_stack.messages(code))
    assert "CLAUDE_CODE_MAX_RETRIES" in looked
    # It cannot reach the fake GitHub on this host, and has no token for it.
    assert "unable to access" in looked
    for script in (question, curious, prompt):
        requests = own_stack.model.requests(script[9:-2])
        assert_clean(json.dumps(requests).encode(), needles, "a request to the model")
    found = await histories(own_stack)
    assert {f"job-{job_id}" for job_id in (task, code, slow, refused)} <= found.keys()
    assert len(found) >= 5
    for workflow_id, history in found.items():
        assert_clean(history.encode(), needles, f"the history of {workflow_id}")
    assert assert_files_clean(own_stack) > 40
    assert_token_is_kept_closely(own_stack)
