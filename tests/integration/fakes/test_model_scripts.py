from __future__ import annotations

from typing import Any

import pytest

from domain.errors import InvalidRequest, NotFound
from fakes.anthropic.scripts import LOG_LENGTH, RecordedRequest, Scripts
from fakes.anthropic.steps import Step, make_script

STEPS: list[Step] = [{"text": "a", "times": 2}, {"text": "b"}]


def taken(scripts: Scripts, name: str, calls: int, session: str = "", agent: str = "") -> list[Any]:
    steps = [scripts.take(name, session, agent) for _ in range(calls)]
    return [step and step["text"] for step in steps]


def test_steps_answer_in_order_and_as_often_as_they_say() -> None:
    scripts = Scripts()
    scripts.put("s", make_script(STEPS))
    assert scripts.remaining("s") == 3
    assert taken(scripts, "s", 5) == ["a", "a", "b", None, None]
    assert scripts.remaining("s") == 0


def test_two_scripts_with_the_same_steps_have_separate_positions() -> None:
    scripts = Scripts()
    scripts.put("one", make_script(STEPS))
    scripts.put("two", make_script(STEPS))
    assert taken(scripts, "one", 3) == taken(scripts, "two", 3) == ["a", "a", "b"]


def test_a_stored_script_does_not_change_with_the_list_it_came_from() -> None:
    scripts = Scripts()
    steps: list[Step] = [{"text": "kept", "tools": [["Read", {"file_path": "a"}]]}]
    scripts.put("s", make_script(steps))
    steps[0]["tools"][0][1]["file_path"] = "b"
    step = scripts.take("s", "", "")
    assert step is not None
    assert step["tools"][0][1] == {"file_path": "a"}


def test_sessions_and_agents_have_their_own_positions() -> None:
    scripts = Scripts()
    scripts.put("s", make_script(STEPS, [{"text": "sub"}]))
    assert taken(scripts, "s", 3, session="1") == ["a", "a", "b"]
    assert taken(scripts, "s", 1, session="2") == ["a"]
    assert taken(scripts, "s", 2, session="1", agent="x") == ["sub", None]
    assert taken(scripts, "s", 1, session="1", agent="y") == ["sub"]
    assert [scripts.remaining("s", session) for session in ("1", "2", "3")] == [0, 2, 3]


def test_the_last_step_can_repeat() -> None:
    scripts = Scripts()
    scripts.put("s", make_script(STEPS, repeat_last=True))
    assert taken(scripts, "s", 6) == ["a", "a", "b", "b", "b", "b"]
    assert taken(scripts, "s", 1, agent="no-steps-for-agents") == [None]


def test_storing_a_script_again_resets_it() -> None:
    scripts = Scripts()
    scripts.put("s", make_script(STEPS))
    taken(scripts, "s", 3)
    scripts.record("s", a_request(0))
    scripts.put("s", make_script([{"text": "new"}]))
    assert scripts.requests("s") == []
    assert taken(scripts, "s", 2) == ["new", None]


def test_the_log_keeps_the_latest_requests() -> None:
    scripts = Scripts()
    for number in range(LOG_LENGTH + 2):
        scripts.record("s", a_request(number))
    kept = [request["time"] for request in scripts.requests("s")]
    assert kept == list(range(2, LOG_LENGTH + 2))


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 65])
def test_names_that_are_invalid_in_urls_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 64 letters"):
        Scripts().put(name, make_script([]))


def test_an_unknown_script_is_named() -> None:
    with pytest.raises(NotFound, match="no script 'missing'"):
        Scripts().take("missing", "", "")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"txt": "typo"}, "no key 'txt'"),
        ({"drop": "late"}, "drop of a step"),
        ({"times": 0}, "at least 1"),
        ({"chunk": 0}, "at least 1"),
        ({"tools": [["Write"]]}, "name, input"),
        ({"tools": [["Write", "text"]]}, "name, input"),
        ("text", "is an object"),
    ],
)
def test_malformed_steps_are_refused(step: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        make_script([step])
    with pytest.raises(InvalidRequest, match=message):
        make_script([], [step])


def a_request(number: int) -> RecordedRequest:
    return RecordedRequest(
        method="POST", path="/", query="", time=number, headers={}, body=None, main=True
    )
