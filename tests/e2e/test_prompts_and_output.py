"""Any prompt reaches the model, and any line of output reaches the transcript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.steps import COMMIT_ALL, bash, say, write
from tests.stack import OWNER, Stack

Json = dict[str, Any]
PRIVATE = "what stands in a file outside the worktree"


def private_file(directory: Path) -> Path:
    path = directory / "private.txt"
    path.write_text(PRIVATE)
    return path


def wait_for_answer(stack: Stack, job_id: str, answer: str) -> None:
    stack.wait_for(job_id, lambda job: bool(job["result"] == answer))


def said_to_the_model(stack: Stack, prompt: str) -> str:
    """Return the user's text in the first request of the prompt's script."""
    name = prompt.rpartition("[[script:")[2].partition("]]")[0]
    [request, *_] = [entry for entry in stack.model.requests(name) if entry["main"]]
    return json.dumps(request["body"]["messages"], ensure_ascii=False)


def as_json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def lines_of(stack: Stack, job_id: str) -> Iterator[Json]:
    for message in stack.messages(job_id):
        if message["type"] == "stdout":
            yield json.loads(message["content"])


def texts_of(stack: Stack, job_id: str) -> list[str]:
    """Return the text blocks of Claude."""
    return [
        block["text"]
        for line in lines_of(stack, job_id)
        if line["type"] == "assistant"
        for block in line["message"]["content"]
        if block["type"] == "text"
    ]


def test_unicode_is_preserved_everywhere(stack: Stack):
    client, name = stack.new_repository()
    prompt = "Größe 日本語 🎉 \u2028 e\u0301\nzweite Zeile " + stack.script(
        [
            bash(f"echo ü > 'größe 日本 🎉.txt'; {COMMIT_ALL} 'Ändere 🎉'"),
            write("naïve\u2028.txt", "Füße 🎉\n"),
            say("Fertig: 日本語 🎉"),
        ]
    )
    job_id = stack.post_job(client, prompt, branchName="feature/größe-日本", title="Größe 🎉 日本")
    job = stack.wait_for(job_id, "completed")

    assert (job["prompt"], job["title"]) == (prompt, "Größe 🎉 日本")
    assert as_json_text(prompt) in said_to_the_model(stack, prompt)
    assert job["result"] == "Fertig: 日本語 🎉"
    [pull] = stack.github.pull_requests(OWNER, name)
    assert (pull.head, pull.title) == ("feature/größe-日本", "Größe 🎉 日本")
    assert "Größe 日本語 🎉" in (pull.body or "")
    assert "Fertig: 日本語 🎉" in (pull.body or "")
    rest, own, _ = stack.github.log(OWNER, name, pull.head)
    assert (rest.subject, own.subject) == ("Größe 🎉 日本", "Ändere 🎉")
    assert stack.github.read_file(OWNER, name, pull.head, "größe 日本 🎉.txt") == "ü\n"
    assert stack.github.read_file(OWNER, name, pull.head, "naïve\u2028.txt") == "Füße 🎉\n"


@pytest.mark.parametrize("job_type", ["code", "task"])
@pytest.mark.parametrize("start", ["/clear", "/cost", "-p --version", "--help", "@{file}"])
def test_a_prompt_is_never_run_as_a_command(
    stack: Stack, start: str, job_type: str, tmp_path: Path
):
    client, _ = stack.new_repository()
    start = start.format(file=private_file(tmp_path))
    prompt = f"{start} {stack.script([say('I read that.')])}"
    job_id = stack.post_job(client, prompt, jobType=job_type)
    job = stack.wait_for(job_id, lambda job: job["result"] is not None)

    assert job["result"] == "I read that."
    said = said_to_the_model(stack, prompt)
    assert as_json_text(prompt) in said
    assert PRIVATE not in said


def test_a_message_is_never_run_as_a_command(stack: Stack, tmp_path: Path):
    client, _ = stack.new_repository()
    prompt = stack.script([say("Ask."), say("One."), say("Two.")])
    job_id = stack.post_job(client, prompt, jobType="task")
    mention = f"@{private_file(tmp_path)}"
    for text, answer in (("/clear", "One."), (mention, "Two.")):
        stack.wait_for(job_id, "waiting_for_user")
        stack.call("POST", f"/jobs/{job_id}/message", {"message": text})
        wait_for_answer(stack, job_id, answer)
    name = prompt[9:-2]
    last = json.dumps(stack.model.requests(name)[-1]["body"]["messages"])
    assert "/clear" in last
    assert mention in last
    assert PRIVATE not in last


def test_a_long_prompt_reaches_the_model_completely(stack: Stack):
    client, _ = stack.new_repository()
    filler = "".join(f"{number:06} words of a long prompt\n" for number in range(28_000))
    prompt = f"{filler[: 900 * 1024]}\n{stack.script([say('That was long.')])}"
    job_id = stack.post_job(client, prompt)
    job = stack.wait_for(job_id, "completed")

    assert job["prompt"] == prompt
    assert as_json_text(prompt) in said_to_the_model(stack, prompt)


def test_every_line_is_stored_completely_and_in_order(stack: Stack):
    client, _ = stack.new_repository()
    odd = "between \u2028 and \u2029 and \x85 and \x00 and \x1b[31m and \ufeff end"
    long = "".join(f"{number:07} " for number in range(125_000))
    prompt = stack.script(
        [
            {"text": odd, **bash("true"), "chunk": 9},
            {"text": long, **bash("true"), "chunk": 100_000},
            bash("head -c 20000 /dev/urandom; printf 'a\\000b'"),
            say("The end."),
        ]
    )
    job_id = stack.post_job(client, prompt)
    stack.wait_for(job_id, "completed")

    assert texts_of(stack, job_id) == [odd, long, "The end."]
    messages = stack.messages(job_id)
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    assert max(len(message["content"]) for message in messages) > 1_000_000
    times = [message["created_at"] for message in messages]
    assert times == sorted(times)
    kinds = [line["type"] for line in lines_of(stack, job_id)]
    assert kinds[-1] == "result"
    assert kinds.count("result") == 1


def test_a_transcript_is_read_in_pages(stack: Stack):
    client, _ = stack.new_repository()
    job_id = stack.post_job(client, stack.script([*[bash("true")] * 5, say("Done.")]))
    stack.wait_for(job_id, "completed")
    stack.wait_for(job_id, lambda job: job["phase"] is None)

    whole = stack.messages(job_id)
    pages: list[Json] = []
    after: int | None = 0
    while after is not None:
        page = stack.call("GET", f"/jobs/{job_id}/messages?after={after}&limit=4")
        pages += page["messages"]
        after = page["next_after"]
    assert pages == whole
    assert len(whole) > 10
