from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fakes.anthropic.server import UNSCRIPTED, ScriptedModel, Step

WRITE = {"name": "Write", "input_schema": {"type": "object"}}


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel().serve() as running:
        yield running


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


def request_body(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "claude-test",
        "max_tokens": 64,
        "stream": True,
        "system": [{"type": "text", "text": "Primary working directory: /srv/my jobs/a1\nLinux"}],
        "tools": [WRITE],
        "messages": [{"role": "user", "content": text}],
    }
    return {**body, **fields}


def ask(
    http: httpx.Client, url: str, body: dict[str, Any] | None = None, **headers: str
) -> httpx.Response:
    named = {f"x-claude-code-{key}-id": value for key, value in headers.items()}
    return http.post(f"{url}/v1/messages?beta=true", json=body or request_body(), headers=named)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    found = []
    for event in response.text.split("\n\n")[:-1]:
        kind, data = event.split("\n")
        document = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {document['type']}"
        found.append(document)
    return found


def reply_text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    deltas = [event.get("delta", {}) for event in events(response)]
    return "".join(delta.get("text", "") for delta in deltas)


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    document = response.json()
    assert document["type"] == "error"
    return response.status_code, document["error"]["type"], document["error"]["message"]


def test_a_streamed_reply_has_the_events_in_order(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script(
        "s",
        [
            {
                "thinking": "hm",
                "text": "I'll write it",
                "tools": [["Write", {"file_path": "$CWD/a.txt", "lines": ["$CWD", 1]}]],
                "chunk": 10,
                "in_tokens": 7,
                "out_tokens": 9,
            }
        ],
    )
    response = ask(http, url)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["request-id"]
    found = events(response)
    kinds = [event["type"].removeprefix("content_block_") for event in found]
    assert kinds[:10] == [
        "message_start",
        *("start", "delta", "delta", "stop"),
        *("start", "delta", "delta", "stop"),
        "start",
    ]
    assert kinds[-3:] == ["stop", "message_delta", "message_stop"]
    start = found[0]["message"]
    assert (start["model"], start["usage"]["input_tokens"]) == ("claude-test", 7)
    assert found[3]["delta"] == {"type": "signature_delta", "signature": "c2ln"}
    assert [e["index"] for e in found if e["type"] == "content_block_start"] == [0, 1, 2]
    pieces = [e["delta"]["partial_json"] for e in found if "partial_json" in e.get("delta", {})]
    assert max(map(len, pieces)) == 10
    written = {"file_path": "/srv/my jobs/a1/a.txt", "lines": ["/srv/my jobs/a1", 1]}
    assert json.loads("".join(pieces)) == written
    assert found[-2]["delta"]["stop_reason"] == "tool_use"
    assert found[-2]["usage"]["output_tokens"] == 9


def test_without_streaming_the_message_is_complete(
    model: ScriptedModel, http: httpx.Client
) -> None:
    url = model.script(
        "s", [{"text": "Yes", "tools": [["Write", {}]], "drop": "mid"}, {"text": "Bye"}]
    )
    first, second = (ask(http, url, request_body(stream=False)).json() for _ in range(2))
    assert [block["type"] for block in first["content"]] == ["text", "tool_use"]
    assert (first["stop_reason"], first["usage"]["output_tokens"]) == ("tool_use", 20)
    assert (second["content"], second["stop_reason"]) == (
        [{"type": "text", "text": "Bye"}],
        "end_turn",
    )


def test_calls_after_the_end_of_the_script_fail(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script("s", [{"text": "only"}])
    assert reply_text(ask(http, url)) == "only"
    status, kind, message = error_of(ask(http, url))
    assert (status, kind) == (400, "invalid_request_error")
    assert "script exhausted" in message
    assert len(model.requests("s")) == 2


def test_the_last_step_can_repeat(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script("s", [{"text": "a"}, {"text": "b"}], repeat_last=True)
    assert [reply_text(ask(http, url)) for _ in range(4)] == ["a", "b", "b", "b"]


def test_the_port_is_free_again_and_can_be_chosen(http: httpx.Client) -> None:
    with ScriptedModel().serve() as first:
        port = int(first.base_url.rsplit(":", 1)[1])
        ask(http, first.script("s", [{"text": "a"}]))
        with pytest.raises(OSError, match="in use"), ScriptedModel().serve(port):
            pass
    with ScriptedModel().serve(port) as second:
        assert second.base_url == first.base_url
        assert reply_text(ask(http, second.script("s", [{"text": "b"}]))) == "b"


def test_calls_without_tools_take_no_step(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script("s", [{"text": "for the main call"}])
    assert reply_text(ask(http, url, request_body(tools=[]))) == "Scripted conversation"
    assert model.remaining("s") == 1
    assert reply_text(ask(http, url)) == "for the main call"
    assert [request["main"] for request in model.requests("s")] == [False, True]


def test_other_paths_are_counted_answered_and_logged(
    model: ScriptedModel, http: httpx.Client
) -> None:
    url = model.script("s", [])
    counted = http.post(f"{url}/v1/messages/count_tokens", json=request_body())
    assert counted.json()["input_tokens"] == len(counted.request.content) // 4
    assert http.head(f"{url}/api/hello").status_code == 404
    assert http.get(f"{model.base_url}/nothing").status_code == 404
    logged = [(request["method"], request["path"]) for request in model.requests("s")]
    assert logged == [("POST", "/v1/messages/count_tokens"), ("HEAD", "/api/hello")]
    assert [request["path"] for request in model.requests()] == ["/nothing"]


def test_the_log_has_the_credential_and_the_whole_request(
    model: ScriptedModel, http: httpx.Client
) -> None:
    url = model.script("s", [{"text": "a"}])
    before = time.time()
    http.post(f"{url}/v1/messages?beta=true", json=request_body(), headers={"X-Api-Key": "key-1"})
    (request,) = model.requests("s")
    assert request["headers"]["x-api-key"] == "key-1"
    assert (request["method"], request["path"], request["query"]) == (
        "POST",
        "/v1/messages",
        "beta=true",
    )
    assert request["body"] == request_body()
    assert before <= request["time"] <= time.time()


def test_a_marker_in_the_first_message_chooses_the_script(
    model: ScriptedModel, http: httpx.Client
) -> None:
    steps: list[Step] = [{"text": "first"}, {"text": "second"}]
    model.script("a", steps)
    model.script("b", [{"text": "other"}])
    marked = request_body("<system-reminder>[[script:b]]</system-reminder>Please [[script:a]]")
    later = request_body(
        messages=[
            *marked["messages"],
            {"role": "assistant", "content": [{"type": "text", "text": "first"}]},
            {"role": "user", "content": [{"type": "text", "text": "now [[script:b]]"}]},
        ]
    )
    url = model.base_url
    assert reply_text(ask(http, url, marked, session="1")) == "first"
    assert reply_text(ask(http, url, marked, session="2")) == "first"
    assert reply_text(ask(http, url, later, session="1")) == "second"
    assert error_of(ask(http, url, later, session="1"))[0] == 400
    assert [model.remaining("a", session) for session in ("1", "2", "3")] == [0, 1, 2]
    assert (len(model.requests("a")), len(model.requests("b"))) == (4, 0)


def test_subagents_have_their_own_steps(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script("s", [{"text": "main"}], subagent=[{"text": "sub"}])
    assert reply_text(ask(http, url, session="1", agent="x")) == "sub"
    assert reply_text(ask(http, url, session="1", agent="y")) == "sub"
    assert reply_text(ask(http, url, session="1")) == "main"


def test_a_call_without_a_script_is_refused_or_answered_by_the_story(http: httpx.Client) -> None:
    with ScriptedModel().serve() as silent:
        status, _, message = error_of(ask(http, silent.base_url))
        assert status == 400
        assert "[[script:NAME]]" in message
        unknown = ask(http, silent.url_for("missing"))
        assert "no script 'missing'" in error_of(unknown)[2]
    told = ScriptedModel(lambda conversation: {"text": f"You said {conversation.said[-1]}"})
    with told.serve():
        assert reply_text(ask(http, told.base_url, request_body("hi"))) == "You said hi"
        assert len(told.requests(UNSCRIPTED)) == 1


def test_a_directory_that_the_request_does_not_name_is_an_error(
    model: ScriptedModel, http: httpx.Client
) -> None:
    url = model.script("s", [{"tools": [["Read", {"file_path": "$CWD/a"}]]}])
    status, _, message = error_of(ask(http, url, request_body(system="none")))
    assert status == 400
    assert "$CWD" in message
