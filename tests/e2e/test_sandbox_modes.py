"""Each sandbox mode with a whole job and a conversation."""

from __future__ import annotations

import pytest

from tests.e2e.steps import COMMIT_ALL, bash, say, write
from tests.stack import OWNER, running_stack


@pytest.mark.parametrize(
    "settings",
    [
        {"SANDBOX": "landlock"},
        {"SANDBOX": "off"},
        {"SANDBOX_NETWORK": "host"},
        {"SANDBOX_NETWORK": "none"},
    ],
    ids=lambda settings: " ".join(settings.values()),
)
def test_jobs_run_in_every_mode(tmp_path_factory: pytest.TempPathFactory, settings):
    with running_stack(tmp_path_factory.mktemp("mode"), **settings) as stack:
        client, name = stack.new_repository()
        committed = bash(f"echo b > b.txt && {COMMIT_ALL} 'By Claude' && git stash list")
        prompt = stack.script([write("a.txt", "a\n"), committed, write("c.txt", "c"), say("Done.")])
        job_id = stack.post_job(client, prompt)
        question = stack.script([say("Which?"), say("That one, then.")])
        task = stack.post_job(client, question, jobType="task")

        job = stack.wait_for(job_id, "completed")
        branch = job["branch_name"]
        history = [entry.subject for entry in stack.github.log(OWNER, name, branch)]
        assert history[1:] == ["By Claude", "Initial commit"]
        assert stack.github.read_file(OWNER, name, branch, "c.txt") == "c"

        stack.wait_for(task, "waiting_for_user")
        stack.call("POST", f"/jobs/{task}/message", {"message": "The first."})
        stack.wait_for(task, lambda job: job["result"] == "That one, then.")
