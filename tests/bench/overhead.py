"""The overhead of the orchestrator on a code job, compared with a script."""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import time
import uuid
from pathlib import Path

from github import Auth, Github

from agent.claude.arguments import CODE_TOOLS
from agent.claude.executable import find_executable
from tests.stack import OWNER, TOKEN, Stack

RUNS = 7


def report(stack: Stack) -> None:
    client, name = stack.new_repository()
    by_hand = _Script(stack, name)
    by_hand.run()
    _job(stack, client)
    pairs = [(_job(stack, client), by_hand.run()) for _ in range(RUNS)]
    ours, hand = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"code job, POST to completed      {ours:6.2f} s")
    print(f"the same commands by hand        {hand:6.2f} s")
    print(f"difference                       {ours - hand:6.2f} s   (goal: 0.35 or less)")
    print(f"ratio                            {ours / hand:6.2f}")


def _job(stack: Stack, client: str) -> float:
    began = time.perf_counter()
    job_id = stack.post_job(client, "Write a note")
    while stack.job(job_id)["status"] != "completed":
        time.sleep(0.01)
    return time.perf_counter() - began


class _Script:
    """The same steps in a script: fetch, worktree, Claude, commit, push, pull request."""

    def __init__(self, stack: Stack, name: str) -> None:
        environment = stack.environment
        self._root = stack.root / "by-hand"
        self._mirror = self._root / "mirror.git"
        self._name = name
        self._github = Github(
            auth=Auth.Token(TOKEN), base_url=environment["GITHUB_API_URL"], retry=None
        )
        self._claude = str(find_executable(None, environment["PATH"]))
        credentials = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        self._environment = {
            **environment,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {credentials}",
            "GIT_AUTHOR_NAME": "Bench",
            "GIT_AUTHOR_EMAIL": "bench@example.org",
            "GIT_COMMITTER_NAME": "Bench",
            "GIT_COMMITTER_EMAIL": "bench@example.org",
            "IS_SANDBOX": "1",
        }
        self._root.mkdir()
        url = f"{environment['GITHUB_SERVER_URL']}/{OWNER}/{name}.git"
        self._git("init", "--quiet", "--bare", str(self._mirror), at=self._root)
        self._git("remote", "add", "origin", url)

    def run(self) -> float:
        job = uuid.uuid4().hex
        worktree = self._root / job
        began = time.perf_counter()
        self._git("fetch", "--quiet", "--prune", "--no-tags", "origin")
        branch = f"hand/{job}"
        start = "origin/main"
        self._git("worktree", "add", "--quiet", "--no-track", "-b", branch, str(worktree), start)
        self._run_claude(worktree, job)
        self._git("add", "--all", at=worktree)
        self._git("commit", "--quiet", "--message", "Write a note", at=worktree)
        self._git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}", at=worktree)
        remote = self._github.get_repo(f"{OWNER}/{self._name}", lazy=True)
        remote.create_pull(base="main", head=branch, title="Write a note", body="By hand")
        return time.perf_counter() - began

    def _run_claude(self, worktree: Path, job: str) -> None:
        home = self._root / f"home-{job}"
        home.mkdir()
        line = {"type": "user", "message": {"role": "user", "content": "# Job\n\nWrite a note"}}
        subprocess.run(
            [
                self._claude, "--print", "--input-format", "stream-json",
                "--output-format", "stream-json", "--verbose", "--strict-mcp-config",
                "--disable-slash-commands", "--permission-mode", "bypassPermissions",
                "--setting-sources", "user", "--tools", ",".join(CODE_TOOLS),
            ],
            cwd=worktree,
            env={
                **self._environment,
                "HOME": str(home),
                "CLAUDE_CONFIG_DIR": str(home / ".claude"),
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "DISABLE_AUTOUPDATER": "1",
            },
            input=json.dumps(line).encode() + b"\n",
            stdout=subprocess.DEVNULL,
            check=True,
        )  # fmt: skip

    def _git(self, *arguments: str, at: Path | None = None) -> None:
        subprocess.run(
            ["git", *arguments], cwd=at or self._mirror, env=self._environment, check=True
        )
