"""Conversations: forbidden actions, messages and completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from domain.failures import FailureCode
from fakes.anthropic.request import Conversation, read_conversation
from tests.e2e.failing import assert_unpublished, failed_as, kept_files
from tests.e2e.steps import say, use
from tests.stack import OWNER, Json, Stack, eventually

ATTACK = "attack.txt"


def script_name(prompt: str) -> str:
    return prompt.rpartition("[[script:")[2].partition("]]")[0]


def asked(stack: Stack, prompt: str) -> list[Conversation]:
    """Return the parsed model calls of the prompt's script."""
    return [
        read_conversation(request["body"], request["headers"])
        for request in stack.model.requests(script_name(prompt))
        if request["main"]
    ]


def send(stack: Stack, job_id: str, text: str) -> None:
    stack.call("POST", f"/jobs/{job_id}/message", {"message": text})


def user_inputs(stack: Stack, job_id: str) -> list[str]:
    return [m["content"] for m in stack.messages(job_id) if m["type"] == "user_input"]


def tool_results(stack: Stack, job_id: str) -> list[Json]:
    lines = [json.loads(m["content"]) for m in stack.messages(job_id) if m["type"] == "stdout"]
    blocks = [
        block
        for line in lines
        if line["type"] == "user" and isinstance(line["message"]["content"], list)
        for block in line["message"]["content"]
    ]
    return [block for block in blocks if block["type"] == "tool_result"]


def test_claude_can_change_no_file_and_read_no_file_outside(stack: Stack, tmp_path: Path):
    client, name = stack.new_repository()
    outside = tmp_path / "private.txt"
    outside.write_text("what stands outside")
    link = {"command": f"ln -s {outside} link; touch {ATTACK}; git commit --allow-empty -m x"}
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("Write", {"file_path": f"$CWD/{ATTACK}", "content": "x"}),
        ("Write", {"file_path": str(tmp_path / ATTACK), "content": "x"}),
        ("Edit", {"file_path": "$CWD/app.py", "old_string": "hi", "new_string": "ho"}),
        ("NotebookEdit", {"notebook_path": "$CWD/a.ipynb", "new_source": "x"}),
        ("Bash", link),
        ("Read", {"file_path": str(outside)}),
        ("Read", {"file_path": "$CWD/../../../../../../../../../etc/passwd"}),
        ("Read", {"file_path": "/proc/self/environ"}),
        ("Grep", {"pattern": "stands", "path": str(tmp_path), "output_mode": "content"}),
        ("Glob", {"pattern": "*", "path": str(tmp_path)}),
        ("Agent", {"description": "x", "prompt": "write a file", "subagent_type": "x"}),
        ("WebFetch", {"url": stack.url + "/health", "prompt": "x"}),
    ]
    steps = [use("Read", file_path="$CWD/app.py")] + [
        use(tool, **tool_input) for tool, tool_input in attempts
    ]
    job_id = stack.post_job(client, stack.script([*steps, say("I tried.")]), jobType="task")
    job = stack.wait_for(job_id, "waiting_for_user")

    read, *refused = tool_results(stack, job_id)
    assert "print('hi')" in str(read["content"])
    assert len(refused) == len(attempts)
    for (tool, _), result in zip(attempts, refused, strict=True):
        assert result.get("is_error"), f"{tool} was not refused: {result}"
    transcript = json.dumps(stack.messages(job_id))
    assert "what stands outside" not in transcript
    assert "root:x:0" not in transcript
    worktree = Path(job["worktree_path"])
    assert {entry.name for entry in worktree.iterdir()} == {".git", "README.md", "app.py"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["private.txt"]
    stack.call("POST", f"/jobs/{job_id}/complete")
    assert stack.wait_for(job_id, "completed")["outcome"] == "answered"
    assert list(stack.github.branches(OWNER, name)) == ["main"]


def test_a_message_during_a_turn_reaches_the_running_process(stack: Stack):
    client, _ = stack.new_repository()
    reading = use("Read", file_path="$CWD/app.py")
    prompt = stack.script([reading | {"delay": 2.0}, say("Both."), say("Not expected.")])
    job_id = stack.post_job(client, prompt, jobType="task")
    eventually(lambda: asked(stack, prompt), 60, "the model is asked")
    send(stack, job_id, "And the second thing.")
    stack.wait_for(job_id, lambda job: job["result"] == "Both.")
    job = stack.wait_for(job_id, "waiting_for_user")

    # One lease, one start of the CLI.
    assert (job["lease"], job["attempt"]) == (1, 1)
    last = asked(stack, prompt)[-1]
    assert len(asked(stack, prompt)) == 2
    assert last.said[-1] == "And the second thing."
    assert user_inputs(stack, job_id) == ["And the second thing."]


def test_several_messages_arrive_once_each_and_in_order(stack: Stack):
    client, _ = stack.new_repository()
    prompt = stack.script([say("Go on.", delay=1.5)], repeat_last=True)
    job_id = stack.post_job(client, prompt, jobType="task")
    eventually(lambda: asked(stack, prompt), 60, "the model is asked")
    sent = [f"Message number {number}." for number in range(8)]
    for text in sent[:5]:
        send(stack, job_id, text)
    stack.wait_for(job_id, "waiting_for_user")
    for text in sent[5:]:
        send(stack, job_id, text)

    def heard() -> list[str]:
        texts = "\n".join(asked(stack, prompt)[-1].said)
        return [line for line in texts.splitlines() if line.startswith("Message number")]

    eventually(lambda: len(heard()) >= len(sent), 60, "all messages were heard")
    stack.wait_for(job_id, "waiting_for_user")
    assert heard() == sent
    assert user_inputs(stack, job_id) == sent


def test_the_second_turn_continues_the_session(stack: Stack):
    client, _ = stack.new_repository()
    prompt = stack.script([say("First answer."), say("Second answer.")])
    job_id = stack.post_job(client, f"The question. {prompt}", jobType="task")
    first = stack.wait_for(job_id, "waiting_for_user")
    send(stack, job_id, "The reply.")
    stack.wait_for(job_id, lambda job: job["result"] == "Second answer.")
    second = stack.wait_for(job_id, "waiting_for_user")

    one, two = asked(stack, prompt)
    assert one.session == two.session == job_id == second["session_id"]
    assert "The question." in two.said[0]
    assert two.said[1] == "The reply."
    history = stack.model.requests(script_name(prompt))[-1]["body"]["messages"]
    assert "First answer." in json.dumps(history)
    assert (first["lease"], second["lease"]) == (1, 2)
    assert second["worktree_path"] == first["worktree_path"]
    assert second["num_turns"] == 2
    assert second["input_tokens"] == 2 * first["input_tokens"] == 200


def test_completing_during_a_turn_ends_after_it(stack: Stack):
    client, _ = stack.new_repository()
    prompt = stack.script([say("The answer.", delay=3.0)])
    job_id = stack.post_job(client, prompt, jobType="task")
    eventually(lambda: asked(stack, prompt), 60, "the model is asked")
    completing = {"id": job_id, "status": "completing"}
    assert stack.call("POST", f"/jobs/{job_id}/complete") == completing
    assert stack.call("POST", f"/jobs/{job_id}/complete") == completing
    refused = stack.call("POST", f"/jobs/{job_id}/message", {"message": "late"}, status=400)
    assert "not accepting messages" in refused["error"]
    assert stack.job(job_id)["status"] == "running"
    job = stack.wait_for(job_id, "completed")

    assert (job["outcome"], job["result"]) == ("answered", "The answer.")
    assert user_inputs(stack, job_id) == []
    told = [m["content"] for m in stack.messages(job_id) if m["type"] == "system"]
    assert told.count("The user ended the conversation.") == 1


def test_a_message_that_was_accepted_before_completion_is_answered(stack: Stack):
    client, _ = stack.new_repository()
    prompt = stack.script([say("One.", delay=1.5), say("Two.")])
    job_id = stack.post_job(client, prompt, jobType="task")
    eventually(lambda: asked(stack, prompt), 60, "the model is asked")
    send(stack, job_id, "One more thing.")
    stack.call("POST", f"/jobs/{job_id}/complete")
    job = stack.wait_for(job_id, "completed")
    assert job["result"] == "Two."
    assert asked(stack, prompt)[-1].said[-1] == "One more thing."


def test_completing_while_waiting_ends_at_once(stack: Stack):
    client, _ = stack.new_repository()
    job_id = stack.post_job(client, stack.script([say("The answer.")]), jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    stack.call("POST", f"/jobs/{job_id}/complete")
    job = stack.wait_for(job_id, "completed", 10)
    assert (job["outcome"], job["lease"]) == ("answered", 1)
    stack.call("POST", f"/jobs/{job_id}/complete", status=400)
    stack.call("POST", f"/jobs/{job_id}/message", {"message": "late"}, status=400)


def test_only_a_running_conversation_accepts_messages(stack: Stack):
    client, _ = stack.new_repository()
    prompt = stack.script([say("Done.", delay=2.0)])
    job_id = stack.post_job(client, prompt)
    eventually(lambda: asked(stack, prompt), 60, "the model is asked")
    for path, body in (("message", {"message": "hello"}), ("complete", None)):
        refused = stack.call("POST", f"/jobs/{job_id}/{path}", body, status=400)
        assert refused["error"].startswith("Only task jobs support")
    unknown = "00000000-0000-4000-8000-000000000000"
    stack.call("POST", f"/jobs/{unknown}/message", {"message": "hello"}, status=404)
    stack.wait_for(job_id, "completed")


def test_a_task_reads_its_branch_if_the_remote_has_it(stack: Stack):
    client, name = stack.new_repository()
    stack.github.commit(OWNER, name, "spec", {"app.py": "the spec branch\n"}, "Spec")
    prompt = stack.script([use("Read", file_path="$CWD/app.py"), say("Read.")])
    job_id = stack.post_job(client, prompt, jobType="task", branchName="spec")
    stack.wait_for(job_id, "waiting_for_user")
    [result] = tool_results(stack, job_id)
    assert "the spec branch" in str(result["content"])
    stack.call("POST", f"/jobs/{job_id}/complete")
    stack.wait_for(job_id, "completed")


@pytest.mark.failure(FailureCode.CLAUDE_BILLING)
def test_an_error_of_the_model_ends_the_conversation_with_a_reason(stack: Stack):
    client, name = stack.new_repository()
    prompt = stack.script(
        [
            say("First."),
            {"status": 400, "message": "Your credit balance is too low to access.", "times": 99},
        ]
    )
    job_id = stack.post_job(client, prompt, jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    send(stack, job_id, "Go on.")
    job = failed_as(stack, job_id, FailureCode.CLAUDE_BILLING)
    assert "credit" in job["error"]
    assert user_inputs(stack, job_id) == ["Go on."]
    assert_unpublished(stack, name)
    assert kept_files(stack, job_id) == set()
