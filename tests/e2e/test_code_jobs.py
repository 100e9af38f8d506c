"""Code jobs publish Claude's commits and uncommitted changes, and nothing without changes."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.e2e.processes import processes_of, running
from tests.e2e.steps import COMMIT_ALL, bash, say, wait_for_file, write
from tests.stack import OWNER, Stack, eventually


def test_commits_of_claude_are_published_unchanged(stack: Stack):
    client, name = stack.new_repository()
    prompt = stack.script(
        [bash(f"echo 1 > one.txt; {COMMIT_ALL} 'Add one'"), say("Added one.")],
    )
    job_id = stack.post_job(client, f"Add one. {prompt}", branchName="feature/one")
    job = stack.wait_for(job_id, "completed")

    history = stack.github.log(OWNER, name, "feature/one")
    assert [entry.subject for entry in history] == ["Add one", "Initial commit"]
    assert job["head_sha"] == stack.github.branches(OWNER, name)["feature/one"]
    assert (job["outcome"], job["files_changed"]) == ("pull_request", 1)


def test_uncommitted_changes_are_committed_after_claudes_commits(stack: Stack):
    client, name = stack.new_repository()
    prompt = stack.script(
        [
            bash(f"echo 1 > one.txt; {COMMIT_ALL} 'Add one'; git rm -q app.py"),
            write("two.txt", "2\n"),
            say("Both are there."),
        ]
    )
    job_id = stack.post_job(client, prompt, branchName="feature/two", title="One and two")
    job = stack.wait_for(job_id, "completed")

    rest, own, _ = stack.github.log(OWNER, name, "feature/two")
    assert (rest.subject, own.subject) == ("One and two", "Add one")
    assert rest.author == own.author
    assert job["files_changed"] == 3
    assert stack.github.read_file(OWNER, name, "feature/two", "two.txt") == "2\n"


def test_no_changes_open_no_pull_request(stack: Stack):
    client, name = stack.new_repository()
    prompt = stack.script([bash("echo 1 > one.txt; rm one.txt"), say("It is fine as it is.")])
    job_id = stack.post_job(client, prompt)
    job = stack.wait_for(job_id, "completed")

    assert (job["outcome"], job["files_changed"]) == ("no_changes", 0)
    assert (job["pr_url"], job["pr_number"], job["head_sha"]) == (None, None, None)
    assert job["result"] == "It is fine as it is."
    assert stack.github.pull_requests(OWNER, name) == []
    assert list(stack.github.branches(OWNER, name)) == ["main"]


def test_an_existing_remote_branch_is_continued(stack: Stack):
    client, name = stack.new_repository()
    theirs = stack.github.commit(OWNER, name, "feature/x", {"theirs.txt": "theirs\n"}, "Begin x")
    prompt = stack.script([write("ours.txt", "ours\n"), say("Went on.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x", title="Go on")
    job = stack.wait_for(job_id, "completed")

    history = stack.github.log(OWNER, name, "feature/x")
    assert [entry.subject for entry in history] == ["Go on", "Begin x", "Initial commit"]
    assert job["base_sha"] == theirs
    assert job["files_changed"] == 1


def test_an_open_pull_request_of_the_branch_is_reused(stack: Stack):
    client, name = stack.new_repository()
    stack.github.commit(OWNER, name, "feature/x", {"theirs.txt": "theirs\n"}, "Begin x")
    theirs = stack.github.repository(OWNER, name).pulls.open(
        author="somebody", head="feature/x", base="main", title="Mine", body="Text", draft=False
    )
    prompt = stack.script([write("ours.txt", "ours\n"), say("Went on.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x")
    job = stack.wait_for(job_id, "completed")

    [pull] = stack.github.pull_requests(OWNER, name)
    assert job["pr_number"] == pull.number == theirs.number
    assert (pull.title, pull.body, pull.head_sha) == ("Mine", "Text", job["head_sha"])


def test_two_jobs_on_one_repository_do_not_disturb_each_other(stack: Stack):
    client, name = stack.new_repository()
    signal_file = stack.signal_file()
    names = ("one", "two")
    prompts = {
        each: stack.script(
            [
                write(f"{each}.txt", each),
                wait_for_file(signal_file),
                bash("ls > seen.txt"),
                say(each),
            ]
        )
        for each in names
    }
    jobs = {
        each: stack.post_job(client, prompts[each], branchName=f"feature/{each}") for each in names
    }
    paths = [stack.wait_for(job_id, "working")["worktree_path"] for job_id in jobs.values()]
    for each, path in zip(names, paths, strict=True):
        eventually((Path(path) / f"{each}.txt").exists, 60, f"{each} was written")
    signal_file.touch()
    for each, job_id in jobs.items():
        assert stack.wait_for(job_id, "completed")["files_changed"] == 2
        seen = stack.github.read_file(OWNER, name, f"feature/{each}", "seen.txt").split()
        assert sorted(seen) == sorted(["README.md", "app.py", f"{each}.txt", "seen.txt"])
    assert len(stack.github.pull_requests(OWNER, name)) == 2


def test_a_second_job_on_a_branch_in_use_is_refused(stack: Stack):
    client, name = stack.new_repository()
    signal_file = stack.signal_file()
    prompt = stack.script([wait_for_file(signal_file), write("a.txt", "a"), say("Done.")])
    job_id = stack.post_job(client, prompt, branchName="feature/x")
    body = {"clientId": client, "prompt": "More", "branchName": "feature/x"}

    refused = stack.call("POST", "/jobs", body, 409)
    assert job_id in refused["error"]

    stack.wait_for(job_id, "working")
    stack.call("POST", "/jobs", body, 409)
    signal_file.touch()
    stack.wait_for(job_id, "completed")
    again = stack.script([write("b.txt", "b"), say("Done.")])
    second = stack.post_job(client, again, branchName="feature/x")
    stack.wait_for(second, "completed")
    assert len(stack.github.pull_requests(OWNER, name)) == 1


def test_usage_is_recorded(stack: Stack):
    client, _ = stack.new_repository()
    prompt = stack.script(
        [
            write("a.txt", "a") | {"in_tokens": 1000, "out_tokens": 30},
            say("All done.", in_tokens=2000, out_tokens=40),
        ]
    )
    job_id = stack.post_job(client, prompt)
    job = stack.wait_for(job_id, "completed")

    assert (job["input_tokens"], job["output_tokens"], job["num_turns"]) == (3000, 70, 2)
    assert 0 < job["total_cost_usd"] < 1
    assert job["exit_code"] == 0
    assert job["model"] == "claude-opus-5-5"
    assert job["session_id"] == job_id
    assert job["result"] == "All done."
    assert (job["attempt"], job["lease"], job["pid"]) == (1, 1, None)
    assert job["host"]
    assert 0 < job["claude_seconds"] < 60
    times = [job[name] for name in ("created_at", "started_at", "completed_at", "updated_at")]
    assert times == sorted(times)
    assert len(set(times)) >= 3


def test_the_worktree_is_removed_and_the_row_is_final_after_the_end(stack: Stack):
    client, _ = stack.new_repository()
    job_id = stack.post_job(client, stack.script([write("a.txt", "a"), say("Done.")]))
    stack.wait_for(job_id, "completed")
    job = stack.wait_for(job_id, lambda job: job["phase"] is None)

    assert not Path(job["worktree_path"]).exists()
    assert processes_of(job_id) == []


def test_processes_that_claude_leaves_running_are_ended(stack: Stack):
    client, _ = stack.new_repository()
    signal_file = stack.signal_file()
    daemon = f"import time; time.sleep(300); {str(signal_file)!r}"
    prompt = stack.script(
        [
            bash(f"env -i setsid python3 -c {shlex.quote(daemon)} >/dev/null 2>&1 & disown"),
            wait_for_file(signal_file),
            say("Left it running."),
        ]
    )
    job_id = stack.post_job(client, prompt)
    eventually(lambda: len(running(daemon)) == 1, 60, "the daemon runs")
    signal_file.touch()
    stack.wait_for(job_id, "completed")
    assert processes_of(job_id) == []
    assert running(daemon) == []
