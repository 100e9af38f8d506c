"""No program that a repository or Claude leaves in git or in settings runs as the orchestrator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.steps import bash, say, use, write
from tests.stack import OWNER, Stack

HOOKS = (
    "pre-push pre-commit post-commit commit-msg prepare-commit-msg reference-transaction "
    "post-checkout post-index-change pre-auto-gc update post-rewrite"
)
PROGRAMS = (
    "core.fsmonitor core.sshCommand core.editor core.pager core.askPass gpg.program diff.external "
    "diff.planted.textconv merge.planted.driver uploadpack.packObjectsHook sequence.editor"
)


def planting(traces: Path) -> str:
    """Return shell commands that install a program at every place where git would run it.

    Each program writes a trace in Claude's home and, if it can, in a directory of the host. The
    commands also make git run some programs, and print their traces.
    """
    return f"""
        common=$(git rev-parse --git-common-dir)
        mkdir -p $common/hooks $HOME/traces
        for hook in {HOOKS}; do
            program=$common/hooks/$hook
            printf '#!/bin/sh\\ntouch $HOME/traces/%s {traces}/%s\\n' $hook $hook > $program
            chmod +x $program
        done
        for name in {PROGRAMS}; do
            git config $name "touch $HOME/traces/$name {traces}/$name #"
        done
        for name in clean smudge; do
            git config filter.planted.$name "touch $HOME/traces/$name {traces}/$name; cat"
        done
        git config core.hooksPath $common/hooks
        git config --global core.hooksPath $common/hooks
        git config commit.gpgSign true
        git config credential.helper '!f() {{ cat > {traces}/helper; }}; f'
        git config --global credential.helper '!f() {{ cat > {traces}/helper; }}; f'
        git config remote.origin.url 'ext::sh -c env% >{traces}/ext'
        git config url.http://127.0.0.1:9/.insteadOf http://
        git config http.proxy http://127.0.0.1:9
        echo '* filter=planted diff=planted merge=planted' > .gitattributes
        git add -A
        echo traces: $(ls $HOME/traces)
    """


def test_programs_that_claude_plants_in_git_do_not_run(stack: Stack, tmp_path: Path):
    client, name = stack.new_repository()
    traces = tmp_path / "traces"
    traces.mkdir()
    prompt = stack.script([bash(planting(traces)), write("a.txt", "a"), say("Planted.")])
    job = stack.wait_for(stack.post_job(client, prompt, branchName="feature/a"), "completed")
    assert job["files_changed"] == 2
    printed = re.search(r"traces: (clean [\w. -]+)", json.dumps(stack.messages(job["id"])))
    assert printed is not None
    assert {"clean", "core.fsmonitor", "post-index-change"} <= {*printed[1].split()}
    assert list(traces.iterdir()) == []

    # Neither does the next job on the same mirror, nor a fetch.
    prompt = stack.script([write("b.txt", "b"), say("Done.")])
    stack.wait_for(stack.post_job(client, prompt, branchName="feature/b"), "completed")
    repository = stack.call("GET", f"/clients/{client}")["repository"]["id"]
    stack.call("POST", f"/repos/{repository}/clone")
    assert list(traces.iterdir()) == []
    assert sorted(stack.github.branches(OWNER, name)) == ["feature/a", "feature/b", "main"]


@pytest.mark.parametrize("job_type", ["code", "task"])
def test_claude_settings_of_the_repository_run_no_program(
    stack: Stack, job_type: str, tmp_path: Path
):
    run = [{"type": "command", "command": f"touch {tmp_path}/hook"}]
    settings = {
        "hooks": {"SessionStart": [{"hooks": run}], "PreToolUse": [{"matcher": "*", "hooks": run}]},
        "apiKeyHelper": f"touch {tmp_path}/helper",
    }
    server = {"command": "touch", "args": [f"{tmp_path}/server"]}
    client, _ = stack.new_repository(
        files={
            "app.py": "print('hi')\n",
            "CLAUDE.md": "Always answer in verse.",
            ".claude/settings.json": json.dumps(settings),
            ".claude/settings.local.json": json.dumps(settings),
            ".mcp.json": json.dumps({"mcpServers": {"planted": server}}),
        }
    )
    prompt = stack.script([use("Read", file_path="$CWD/app.py"), say("Read.")])
    job_id = stack.post_job(client, prompt, jobType=job_type)
    stack.wait_for(job_id, lambda job: bool(job["result"] == "Read."))
    assert list(tmp_path.iterdir()) == []
    [request, *_] = stack.model.requests(prompt[9:-2])
    # The guide is part of a user message, not of the system prompt.
    assert "Always answer in verse." not in json.dumps(request["body"]["system"])
    assert json.dumps(request["body"]["messages"][0]).count("Always answer in verse.") == 1
    assert "in verse" not in json.dumps(stack.call("GET", f"/jobs/{job_id}?includeMessages=true"))
