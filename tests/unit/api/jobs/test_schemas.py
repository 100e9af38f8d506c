"""POST /jobs: prompts, titles and branch names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient

from domain.jobs import MAX_PROMPT_BYTES
from tests.unit.api.calls import BEARER, Api

NOT_A_STRING = "Input should be a valid string."
UNSTORABLE = "must not contain NUL characters or lone surrogates."


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (None, NOT_A_STRING),
        (7, NOT_A_STRING),
        (1.5, NOT_A_STRING),
        (True, NOT_A_STRING),
        ({"text": "x"}, NOT_A_STRING),
        (["x"], NOT_A_STRING),
        ("", "must not be empty."),
        (" \t\r\n\u2003", "must not be empty."),
        ("a\0b", UNSTORABLE),
        ("x" * (MAX_PROMPT_BYTES + 1), "must be at most 1048576 bytes in UTF-8."),
        ("ä" * (MAX_PROMPT_BYTES // 2) + "x", "must be at most 1048576 bytes in UTF-8."),
    ],
)
async def test_invalid_prompt(api: Api, prompt: Any, reason: str) -> None:
    body = {"clientId": await api.add_owner(), "branchName": "x", "prompt": prompt}
    assert await api.refusal(400, "POST", "/jobs", body) == f"prompt: {reason}"


async def test_missing_prompt(api: Api) -> None:
    body = {"clientId": await api.add_owner(), "branchName": "x"}
    assert await api.refusal(400, "POST", "/jobs", body) == "prompt is required."


@pytest.mark.parametrize("field", ["prompt", "title"])
@pytest.mark.parametrize("half", [r"\ud83d", r"\ude80", r"x\udfffy"])
async def test_lone_surrogate(api: Api, field: str, half: str) -> None:
    """JSON can encode half of an emoji, but no store can keep it."""
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
async def test_prompt_is_stored_unchanged(api: Api, prompt: str) -> None:
    job = await api.add_job(await api.add_owner(), prompt=prompt)
    assert (await api.get(f"/jobs/{job['id']}"))["prompt"] == prompt


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        (7, NOT_A_STRING),
        ("", "must not be empty."),
        ("  ", "must not be empty."),
        ("a\0b", UNSTORABLE),
        ("x" * 501, "String should have at most 500 characters."),
    ],
)
async def test_invalid_title(api: Api, title: Any, reason: str) -> None:
    body = {"prompt": "x", "branchName": "x", "title": title}
    assert await api.refusal(400, "POST", "/jobs", body) == f"title: {reason}"


@pytest.mark.parametrize("title", ["🚀" * 500, "漢" * 500, "\n".join("abc"), '"' * 500])
async def test_title_in_any_script_starts_a_workflow(
    api: Api, parked: TemporalClient, title: str
) -> None:
    """The title is part of the workflow's summary, which Temporal limits in bytes of JSON."""
    job = await api.add_job(await api.add_owner(), title=title, branchName="🚀" * 61)
    assert (await api.get(f"/jobs/{job['id']}"))["title"] == title
    assert await parked.get_workflow_handle(f"job-{job['id']}").describe()


@pytest.mark.parametrize(
    "job_type", ["foo", "CODE", "Task", "", "code ", 1, True, [], {}, ["code"]]
)
async def test_unknown_job_type(api: Api, job_type: Any) -> None:
    body = {"prompt": "x", "branchName": "x", "jobType": job_type}
    reason = await api.refusal(400, "POST", "/jobs", body)
    assert reason == 'jobType: must be "code" or "task".'


@pytest.mark.parametrize("branch", [{}, {"branchName": None}])
async def test_code_job_without_a_branch(api: Api, branch: dict[str, Any]) -> None:
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
async def test_invalid_branch_name(api: Api, job_type: str, branch: str, reason: str) -> None:
    body = {"prompt": "x", "jobType": job_type, "branchName": branch}
    content = json.dumps(body).encode()
    headers = {**BEARER, "Content-Type": "application/json"}
    response = await api.call("POST", "/jobs", content=content, headers=headers)
    assert response.status_code == 400
    expected = f"branchName {branch[:80]!r} is not a valid branch name: {reason}."
    assert response.json() == {"error": expected}


async def test_branch_name_of_another_type(api: Api) -> None:
    body = {"prompt": "x", "branchName": 7}
    assert await api.refusal(400, "POST", "/jobs", body) == f"branchName: {NOT_A_STRING}"
