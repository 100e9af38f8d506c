"""The complete product with its rows in Supabase."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.steps import say, write
from tests.stack import OWNER, Stack, running_stack
from tests.unit.store.supabase.data_api import SECRET_KEY
from tests.unit.store.supabase.project import SupabaseProject


@pytest.fixture(scope="module")
def on_supabase(
    supabase_project: SupabaseProject, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    supabase_project.empty()
    settings = {"SUPABASE_URL": supabase_project.url, "SUPABASE_SERVICE_ROLE_KEY": SECRET_KEY}
    with running_stack(tmp_path_factory.mktemp("on-supabase"), **settings) as stack:
        yield stack


def rows(project: SupabaseProject, table: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in asyncio.run(project.tables.select(table))}


def test_a_code_job_is_recorded_in_the_project(
    on_supabase: Stack, supabase_project: SupabaseProject
) -> None:
    client, name = on_supabase.new_repository()
    prompt = on_supabase.script([write("new.txt", "new\n"), say("Added it.")])
    job_id = on_supabase.post_job(client, prompt, branchName="feature/new")
    job = on_supabase.wait_for(job_id, "completed")
    assert (job["outcome"], job["pr_number"]) == ("pull_request", 1)
    assert on_supabase.github.read_file(OWNER, name, "feature/new", "new.txt") == "new\n"
    row = rows(supabase_project, "agent_jobs")[job_id]
    assert (row["status"], row["pr_url"], row["lease"]) == ("completed", job["pr_url"], 1)
    assert row["code_branch_id"] in rows(supabase_project, "code_branches")
    assert row["code_pull_request_id"] in rows(supabase_project, "code_pull_requests")
    lines = rows(supabase_project, "agent_job_messages").values()
    assert sorted(line["seq"] for line in lines) == list(range(1, len(lines) + 1))


def test_a_conversation_resumes_from_the_stored_session(
    on_supabase: Stack, supabase_project: SupabaseProject
) -> None:
    client, _ = on_supabase.new_repository()
    prompt = on_supabase.script([say("What else?"), say("Goodbye.")])
    job_id = on_supabase.post_job(client, prompt, jobType="task")
    on_supabase.wait_for(job_id, "waiting_for_user")
    on_supabase.call("POST", f"/jobs/{job_id}/message", {"message": "Nothing 👋"})
    on_supabase.wait_for(job_id, lambda job: "Goodbye." in json.dumps(said(on_supabase, job_id)))
    on_supabase.wait_for(job_id, "waiting_for_user")
    on_supabase.call("POST", f"/jobs/{job_id}/complete")
    job = on_supabase.wait_for(job_id, "completed")
    assert job["outcome"] == "answered"
    assert rows(supabase_project, "agent_job_inbox") == {}


def said(stack: Stack, job_id: str) -> list[str]:
    return [message["content"] for message in stack.messages(job_id)]


def test_no_file_has_rows_or_the_key(on_supabase: Stack) -> None:
    data = on_supabase.root / "data"
    assert list(data.glob("orchestrator.db*")) == []
    assert SECRET_KEY not in on_supabase.log.read_text()
    for file in data.rglob("*"):
        if file.is_file():
            assert SECRET_KEY.encode() not in file.read_bytes(), file
