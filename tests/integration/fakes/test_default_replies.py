from __future__ import annotations

from typing import Any

from fakes.anthropic.default_replies import reply
from fakes.anthropic.request import Conversation, read_conversation

CODE = [{"name": "Write"}, {"name": "Read"}]
TASK = [{"name": "Read"}, {"name": "Grep"}]
README_REFUSAL = "File does not exist."


def conversation(tools: list[dict[str, str]], *messages: dict[str, Any]) -> Conversation:
    body = {"tools": tools, "messages": list(messages), "system": "Primary working directory: /w"}
    return read_conversation(body, {"x-claude-code-session-id": "session-1"})


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def call(tool: str) -> dict[str, Any]:
    use = {"type": "tool_use", "id": f"toolu_{tool}", "name": tool, "input": {}}
    return {"role": "assistant", "content": [use]}


def result(tool: str, text: str, *, failed: bool = False) -> dict[str, Any]:
    block = {"tool_use_id": f"toolu_{tool}", "type": "tool_result", "content": text}
    return {"role": "user", "content": [{**block, "is_error": failed}]}


PROMPT = user("# Your task\n\nAdd a logout button.\n- in the header")


def test_a_code_prompt_is_written_to_a_file() -> None:
    step = reply(conversation(CODE, PROMPT))
    ((tool, given),) = step["tools"]
    assert tool == "Write"
    assert given["file_path"].startswith("$CWD/notes/add-a-logout-button-")
    assert given["content"].startswith("# Add a logout button.\n")
    assert "> - in the header\n" in given["content"]
    assert "session-1" in given["content"]


def test_prompts_with_the_same_first_line_get_different_files() -> None:
    paths = {
        reply(conversation(CODE, user(text)))["tools"][0][1]["file_path"]
        for text in ("Do it\nnow", "Do it\nlater", "做吧", "")
    }
    assert len(paths) == 4


def test_the_reply_after_the_write_describes_it() -> None:
    step = reply(conversation(CODE, PROMPT, call("Write"), result("Write", "created")))
    assert "tools" not in step
    assert step["text"].startswith("I wrote notes/add-a-logout-button-")


def test_a_refused_write_is_repeated_after_reading_and_then_given_up() -> None:
    refused = [PROMPT, call("Write"), result("Write", "not read yet", failed=True)]
    assert reply(conversation(CODE, *refused))["tools"][0][0] == "Read"
    read = [*refused, call("Read"), result("Read", "1\told")]
    assert reply(conversation(CODE, *read))["tools"][0][0] == "Write"
    again = [*read, call("Write"), result("Write", "disk full", failed=True)]
    step = reply(conversation(CODE, *again))
    assert "tools" not in step
    assert "disk full" in step["text"]


def test_a_task_prompt_reads_the_readme_and_asks_a_question() -> None:
    environment = {"role": "system", "content": "# Environment"}
    step = reply(conversation(TASK, PROMPT, environment))
    assert step["tools"] == [["Read", {"file_path": "$CWD/README.md"}]]
    readme = [PROMPT, call("Read"), result("Read", "     1\t\n     2\t# The Shop\n")]
    step = reply(conversation(TASK, *readme))
    assert "tools" not in step
    assert "The README begins with “The Shop”." in step["text"]
    assert "Add a logout button." in step["text"]
    assert step["text"].endswith("?")


def test_a_repository_without_a_readme() -> None:
    missing = [PROMPT, call("Read"), result("Read", README_REFUSAL, failed=True)]
    assert "no README.md" in reply(conversation(TASK, *missing))["text"]


def test_later_messages_are_answered_with_their_text() -> None:
    asked = {"role": "assistant", "content": [{"type": "text", "text": "who?"}]}
    step = reply(conversation(TASK, PROMPT, asked, user("For admins only")))
    assert "tools" not in step
    assert "“For admins only”" in step["text"]


def test_a_message_sent_during_a_turn_counts() -> None:
    news = (
        "The user sent a new message while you were working:\n# Message\nOnly admins\n\n"
        "This is how Claude Code surfaces messages the user sends mid-turn."
    )
    told = {"role": "system", "content": news}
    read = conversation(TASK, PROMPT, call("Read"), result("Read", "1\tx"), told)
    assert read.said[1:] == ("# Message\nOnly admins",)
    assert read.results == ()
    assert "“Only admins”" in reply(read)["text"]


def test_the_last_named_directory_counts() -> None:
    update = "# Environment update\n - Primary working directory: /new place (was /w)\nmore"
    decoy = result("Read", "Primary working directory: /decoy")
    moved = conversation(CODE, PROMPT, {"role": "system", "content": update}, decoy)
    assert (conversation(CODE, PROMPT).directory, moved.directory) == ("/w", "/new place")


def test_an_unusual_request_is_parsed() -> None:
    read = read_conversation({"messages": [{"role": "user"}, {}], "tools": None}, {})
    assert read == Conversation("", "", frozenset(), (), (), "")
    assert reply(read)["text"]
