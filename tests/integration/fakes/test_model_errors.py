from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fakes.anthropic.server import ScriptedModel

CALL: dict[str, Any] = {
    "model": "claude-test",
    "stream": True,
    "tools": [{"name": "Write"}],
    "messages": [{"role": "user", "content": "Hello"}],
}


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel().serve() as running:
        yield running


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


def ask(http: httpx.Client, url: str) -> httpx.Response:
    return http.post(f"{url}/v1/messages", json=CALL)


def kinds(response: httpx.Response) -> list[str]:
    lines = response.text.splitlines()
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    document = response.json()
    assert document["type"] == "error"
    return response.status_code, document["error"]["type"], document["error"]["message"]


def test_errors_and_headers_are_as_scripted(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script(
        "s",
        [
            {"status": 529, "times": 2},
            {"status": 400, "message": "prompt is too long", "headers": {"retry-after": "1"}},
            {"status": 402, "error": "own_error"},
            {"text": "ok", "headers": {"anthropic-test": "yes"}, "stop_reason": "max_tokens"},
        ],
    )
    overloaded = (529, "overloaded_error", "overloaded_error")
    assert [error_of(ask(http, url)) for _ in range(2)] == [overloaded, overloaded]
    response = ask(http, url)
    assert error_of(response) == (400, "invalid_request_error", "prompt is too long")
    assert response.headers["retry-after"] == "1"
    assert error_of(ask(http, url)) == (402, "own_error", "own_error")
    response = ask(http, url)
    assert response.headers["anthropic-test"] == "yes"
    assert '"stop_reason": "max_tokens"' in response.text


def test_a_dropped_connection_gives_no_byte(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script("s", [{"drop": "before"}, {"text": "back"}])
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        ask(http, url)
    assert '"text": "back"' in ask(http, url).text


def test_a_cut_stream_ends_after_its_first_delta(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script("s", [{"text": "abcdef", "chunk": 3, "drop": "mid"}])
    received: list[str] = []
    with http.stream("POST", f"{url}/v1/messages", json=CALL) as response:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            received.extend(response.iter_text())
    assert '"abc"' in "".join(received)
    assert '"def"' not in "".join(received)


def test_an_error_event_replaces_the_stop(model: ScriptedModel, http: httpx.Client) -> None:
    url = model.script("s", [{"text": "a", "sse_error": "overloaded_error"}])
    response = ask(http, url)
    assert kinds(response)[-2:] == ["content_block_stop", "error"]
    assert '"error": {"type": "overloaded_error"' in response.text


def test_pauses_come_before_the_first_byte_and_before_deltas(
    model: ScriptedModel, http: httpx.Client
) -> None:
    url = model.script("s", [{"text": "abcd", "chunk": 1, "delay": 0.2, "chunk_delay": 0.1}])
    began = time.monotonic()
    with http.stream("POST", f"{url}/v1/messages", json=CALL) as response:
        first_byte = time.monotonic() - began
        response.read()
    assert first_byte >= 0.2
    assert time.monotonic() - began >= first_byte + 0.3


def servers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loopback-server"]


def test_a_hung_answer_never_arrives_and_does_not_delay_the_end(http: httpx.Client) -> None:
    others = servers()
    with ScriptedModel().serve() as model:
        url = model.script(
            "s", [{"drop": "hang"}, {"delay": 60.0}, {"text": "a", "chunk_delay": 60.0}]
        )
        with pytest.raises(httpx.ReadTimeout):
            http.post(f"{url}/v1/messages", json=CALL, timeout=0.2)
        callers = [threading.Thread(target=swallow, args=(url,)) for _ in range(2)]
        for caller in callers:
            caller.start()
        wait_for_requests(model, "s", 3)
        assert len(servers()) == len(others) + 1
        began = time.monotonic()
    assert time.monotonic() - began < 2
    for caller in callers:
        caller.join(5)
        assert not caller.is_alive()
    assert servers() == others


def swallow(url: str) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{url}/v1/messages", json=CALL, timeout=30, trust_env=False)


def wait_for_requests(model: ScriptedModel, name: str, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(model.requests(name)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
