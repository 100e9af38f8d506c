"""POST /sync and the clone endpoints, with real fetches."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.stack import OWNER, Json, Stack


def entry(answers: list[Json], name: str) -> Json:
    [found] = [answer for answer in answers if answer["repo"] == f"{OWNER}/{name}"]
    return found


def repository_id(stack: Stack, client: str) -> str:
    return str(stack.call("GET", f"/clients/{client}")["repository"]["id"])


def head_of(mirror: str, branch: str) -> str:
    command = ["git", "-C", mirror, "rev-parse", f"refs/remotes/origin/{branch}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_repository_is_cloned_and_then_fetched(stack: Stack):
    client, name = stack.new_repository()
    path = f"/repos/{repository_id(stack, client)}/clone"
    cloned = stack.call("POST", path)
    assert cloned == {"success": True, "repo": f"{OWNER}/{name}", "path": cloned["path"]}
    assert Path(cloned["path"]).is_relative_to(stack.root / "repos")
    assert head_of(cloned["path"], "main") == stack.github.branches(OWNER, name)["main"]

    newer = stack.github.commit(OWNER, name, "main", {"new.txt": "new\n"}, "New")
    assert stack.call("POST", path) == cloned
    assert head_of(cloned["path"], "main") == newer


def test_a_failed_clone_is_reported(stack: Stack):
    client, name = stack.new_repository()
    stack.github.fail_next(f"/{OWNER}/{name}.git/info/refs", 502, times=9)
    try:
        failed = stack.call("POST", f"/repos/{repository_id(stack, client)}/clone", status=500)
    finally:
        stack.github.clear_faults()
    assert failed["success"] is False
    assert failed["repo"] == f"{OWNER}/{name}"
    assert "502" in failed["error"]
    assert "path" not in failed


def test_unknown_ids(stack: Stack):
    unknown = "00000000-0000-4000-8000-000000000000"
    assert stack.call("POST", f"/repos/{unknown}/clone", status=404) == {
        "error": "Repository not found"
    }
    assert "is not a UUID" in stack.call("POST", "/repos/nonsense/clone", status=400)["error"]


def test_all_are_fetched_and_each_failure_is_reported(stack: Stack):
    _, good = stack.new_repository()
    _, bad = stack.new_repository()
    missing = "missing-from-github"
    client = stack.call("POST", "/clients", {"name": "Missing"})["id"]
    body = {"githubOrg": OWNER, "githubRepo": missing}
    stack.call("POST", f"/clients/{client}/repository", body)

    stack.github.fail_next(f"/{OWNER}/{bad}.git/info/refs", 500, times=9)
    try:
        cloned = stack.call("POST", "/repos/clone")["cloned"]
    finally:
        stack.github.clear_faults()
    assert entry(cloned, good)["success"] is True
    path = entry(cloned, good)["path"]
    assert head_of(path, "main") == stack.github.branches(OWNER, good)["main"]
    assert entry(cloned, bad)["success"] is False
    assert "does not exist" in entry(cloned, missing)["error"]
    assert entry(cloned, missing)["success"] is False

    newer = stack.github.commit(OWNER, good, "topic", {"new.txt": "new\n"}, "New")
    synced = stack.call("POST", "/sync")["synced"]
    assert entry(synced, good) == {"repo": f"{OWNER}/{good}", "success": True}
    assert entry(synced, bad) == {"repo": f"{OWNER}/{bad}", "success": True}
    assert head_of(path, "topic") == newer
    assert [answer["repo"] for answer in synced] == [answer["repo"] for answer in cloned]
