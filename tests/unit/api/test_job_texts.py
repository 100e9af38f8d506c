"""POST /jobs: prompts, titles and branch names, as people and programs write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient

from domain.jobs import MAX_PROMPT_BYTES
from tests.unit.api.calls import BEARER, Api

NO_TEXT = "Input should be a valid string."
UNSTORABLE = "must not contain NUL characters or lone surrogates."


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (None, NO_TEXT),
        (7, NO_TEXT),
        (1.5, NO_TEXT),
        (True, NO_TEXT),
        ({"text": "x"}, NO_TEXT),
        (["x"], NO_TEXT),
        ("", "must not be empty."),
        (" \t\r\n\u2003", "must not be empty."),
        ("a\0b", UNSTORABLE),
        ("x" * (MAX_PROMPT_BYTES + 1), "must be at most 1048576 bytes in UTF-8."),
        ("ä" * (MAX_PROMPT_BYTES // 2) + "x", "must be at most 1048576 bytes in UTF-8."),
    ],
)
async def test_a_prompt_that_cannot_be_one(api: Api, prompt: Any, reason: str) -> None:
    body = {"clientId": await api.add_owner(), "branchName": "x", "prompt": prompt}
    assert await api.refusal(400, "POST", "/jobs", body) == f"prompt: {reason}"


async def test_no_prompt(api: Api) -> None:
    body = {"clientId": await api.add_owner(), "branchName": "x"}
    assert await api.refusal(400, "POST", "/jobs", body) == "prompt is required."


@pytest.mark.parametrize("field", ["prompt", "title"])
@pytest.mark.parametrize("half", [r"\ud83d", r"\ude80", r"x\udfffy"])
async def test_half_a_character(api: Api, field: str, half: str) -> None:
    """What JSON can write and no store can keep: an emoji that a program cut in two."""
    texts = {"prompt": "x", "branchName": "x", field: "HALF"}
    content = json.dumps(texts).replace("HALF", half)
    headers = {**BEARER, "Content-Type": "application/json"}
    response = await api.call("POST", "/jobs", content=content.encode(), headers=headers)
    assert response.status_code == 400
    assert response.json()["error"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "prompt",
    [
        "x",
        "  leading and trailing blanks \n",
        "-- --help\n-rf /",
        "line\r\nline\rline\n\ttab",
        "quotes \" ' ` $(id) ${HOME} %s {0} \\",
        "\x01\x1b[31mred\x7f",
        "مرحبا 你好 שלום नमस्ते",
        "e\u0301 \u00e9 \ufeff\u200b\u2028 \U0010ffff \ufffe",
        "😀" * (MAX_PROMPT_BYTES // 4),
        "\u0001" * MAX_PROMPT_BYTES,
    ],
    ids=lambda prompt: ascii(prompt[:20]),
)
async def test_a_prompt_comes_back_as_it_was(api: Api, prompt: str) -> None:
    job = await api.add_job(await api.add_owner(), prompt=prompt)
    assert (await api.get(f"/jobs/{job['id']}"))["prompt"] == prompt


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        (7, NO_TEXT),
        ("", "must not be empty."),
        ("  ", "must not be empty."),
        ("a\0b", UNSTORABLE),
        ("x" * 501, "String should have at most 500 characters."),
    ],
)
async def test_a_title_that_cannot_be_one(api: Api, title: Any, reason: str) -> None:
    body = {"prompt": "x", "branchName": "x", "title": title}
    assert await api.refusal(400, "POST", "/jobs", body) == f"title: {reason}"


@pytest.mark.parametrize("title", ["🚀" * 500, "漢" * 500, "\n".join("abc"), '"' * 500])
async def test_a_title_of_any_letters_starts_a_workflow(
    api: Api, parked: TemporalClient, title: str
) -> None:
    """Temporal bounds the summary that is made of it, in bytes of JSON."""
    job = await api.add_job(await api.add_owner(), title=title, branchName="🚀" * 61)
    assert (await api.get(f"/jobs/{job['id']}"))["title"] == title
    assert await parked.get_workflow_handle(f"job-{job['id']}").describe()


@pytest.mark.parametrize(
    "job_type", ["foo", "CODE", "Task", "", "code ", 1, True, [], {}, ["code"]]
)
async def test_an_unknown_type(api: Api, job_type: Any) -> None:
    body = {"prompt": "x", "branchName": "x", "jobType": job_type}
    reason = await api.refusal(400, "POST", "/jobs", body)
    assert reason == 'jobType: must be "code" or "task".'


@pytest.mark.parametrize("branch", [{}, {"branchName": None}])
async def test_a_code_job_needs_a_branch(api: Api, branch: dict[str, Any]) -> None:
    body = {"clientId": await api.add_owner(), "prompt": "x", **branch}
    reason = await api.refusal(400, "POST", "/jobs", body)
    assert reason == "branchName is required for code jobs."


@pytest.mark.parametrize("job_type", ["code", "task"])
@pytest.mark.parametrize(
    ("branch", "reason"),
    [
        ("", "it is empty"),
        ("has space", "it has a space or one of ~ ^ : ? * [ \\"),
        ("a\0b", "it has a space or one of ~ ^ : ? * [ \\"),
        ("$(id)..x", "it contains two dots in a row"),
        ("--upload-pack=id", "it starts with a dash"),
        ("HEAD", "HEAD is reserved"),
        ("refs/heads/main", "it starts with refs/"),
        ("x" * 245, "it is too long"),
        ("\ud800", "it is not valid Unicode"),
    ],
)
async def test_a_branch_that_git_cannot_have(
    api: Api, job_type: str, branch: str, reason: str
) -> None:
    body = {"prompt": "x", "jobType": job_type, "branchName": branch}
    content = json.dumps(body).encode()
    headers = {**BEARER, "Content-Type": "application/json"}
    response = await api.call("POST", "/jobs", content=content, headers=headers)
    assert response.status_code == 400
    expected = f"branchName {branch[:80]!r} is not a valid branch name: {reason}."
    assert response.json() == {"error": expected}


async def test_a_branch_that_is_no_text(api: Api) -> None:
    body = {"prompt": "x", "branchName": 7}
    assert await api.refusal(400, "POST", "/jobs", body) == f"branchName: {NO_TEXT}"
