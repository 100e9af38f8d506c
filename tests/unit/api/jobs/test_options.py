"""The options of POST /jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.jobs import JobOptions, JobStatus
from tests.unit.api.calls import BEARER, Api

CODE = {"prompt": "x", "branchName": "feature/x"}
OPTIONS = {
    "model": "claude-opus-4-5[1m]",
    "maxTurns": 40,
    "maxBudgetUsd": 2.5,
    "timeoutMinutes": 90,
    "baseBranch": "release/2",
    "draft": True,
    "labels": ["bot", "größe 🚀"],
    "reviewers": ["ada-l", "acme/core.team"],
}
SHOWN = {
    "requested_model": "claude-opus-4-5[1m]",
    "max_turns": 40,
    "max_budget_usd": 2.5,
    "timeout_minutes": 90,
    "base_branch": "release/2",
    "draft": True,
    "labels": ["bot", "größe 🚀"],
    "reviewers": ["ada-l", "acme/core.team"],
}
NOTHING: dict[str, Any] = {
    "requested_model": None,
    "max_turns": None,
    "max_budget_usd": None,
    "timeout_minutes": None,
    "base_branch": None,
    "draft": None,
    "labels": None,
    "reviewers": None,
}
NO_TURNS = "maxTurns: Input should be"
NO_BUDGET = "maxBudgetUsd: Input should be"
NO_MODEL = (
    "model: must be the name of a model: a letter or digit, then letters, digits and "
    ". _ - : / @ [ ], at most 100 characters."
)
NO_REVIEWER = "reviewers.0: must be a GitHub user name, or org/team."
NO_LABEL = "labels.0: must not contain commas or control characters."

REFUSED: list[tuple[str, Any, str]] = [
    ("model", "", NO_MODEL),
    ("model", "two words", NO_MODEL),
    ("model", "--dangerous", NO_MODEL),
    ("model", "opus\n", NO_MODEL),
    ("model", "größe", NO_MODEL),
    ("model", "x" * 101, NO_MODEL),
    ("model", 7, "model: Input should be a valid string."),
    ("maxTurns", 0, f"{NO_TURNS} greater than or equal to 1."),
    ("maxTurns", -1, f"{NO_TURNS} greater than or equal to 1."),
    ("maxTurns", 100_001, f"{NO_TURNS} less than or equal to 100000."),
    ("maxTurns", 10**400, f"{NO_TURNS} less than or equal to 100000."),
    ("maxTurns", "5", f"{NO_TURNS} a valid integer."),
    ("maxTurns", True, f"{NO_TURNS} a valid integer."),
    ("maxTurns", 1.5, f"{NO_TURNS} a valid integer."),
    ("maxBudgetUsd", 0, f"{NO_BUDGET} greater than 0."),
    ("maxBudgetUsd", -0.5, f"{NO_BUDGET} greater than 0."),
    ("maxBudgetUsd", 100_001, f"{NO_BUDGET} less than or equal to 100000."),
    ("maxBudgetUsd", "1", f"{NO_BUDGET} a valid number."),
    ("maxBudgetUsd", True, f"{NO_BUDGET} a valid number."),
    ("timeoutMinutes", 0, "timeoutMinutes: Input should be greater than or equal to 1."),
    ("timeoutMinutes", 10_081, "timeoutMinutes: Input should be less than or equal to 10080."),
    ("timeoutMinutes", True, "timeoutMinutes: Input should be a valid integer."),
    ("priority", 0, "priority: Input should be greater than or equal to 1."),
    ("priority", 6, "priority: Input should be less than or equal to 5."),
    ("priority", "1", "priority: Input should be a valid integer."),
    ("priority", False, "priority: Input should be a valid integer."),
    ("draft", "true", "draft: Input should be a valid boolean."),
    ("draft", 1, "draft: Input should be a valid boolean."),
    ("labels", "bot", "labels: Input should be a valid list."),
    ("labels", [7], "labels.0: Input should be a valid string."),
    ("labels", [""], "labels.0: must not be empty."),
    ("labels", [" "], "labels.0: must not be empty."),
    ("labels", ["x" * 51], "labels.0: String should have at most 50 characters."),
    ("labels", ["a,b"], NO_LABEL),
    ("labels", ["a\tb"], NO_LABEL),
    ("labels", ["a\0"], NO_LABEL),
    ("labels", ["a\u2028b"], NO_LABEL),
    ("labels", ["Bot", "bot"], "labels: must not contain duplicates."),
    ("labels", [f"{n}" for n in range(21)], "labels: List should have at most 20 items"),
    ("reviewers", ["a b"], NO_REVIEWER),
    ("reviewers", ["-a"], NO_REVIEWER),
    ("reviewers", ["@ada"], NO_REVIEWER),
    ("reviewers", [""], NO_REVIEWER),
    ("reviewers", ["acme/"], NO_REVIEWER),
    ("reviewers", ["/core"], NO_REVIEWER),
    ("reviewers", ["acme/core/x"], NO_REVIEWER),
    ("reviewers", ["x" * 40], NO_REVIEWER),
    ("reviewers", ["Ada", "ada"], "reviewers: must not contain duplicates."),
    ("reviewers", [f"u{n}" for n in range(16)], "reviewers: List should have at most 15 items"),
    ("baseBranch", "a b", "baseBranch 'a b' is not a valid branch name: it has a space"),
    ("baseBranch", "", "baseBranch '' is not a valid branch name: it is empty."),
    ("baseBranch", 7, "baseBranch: Input should be a valid string."),
    (
        "baseBranch",
        "feature/x",
        "baseBranch and branchName are the same. Use another branchName, or leave baseBranch out.",
    ),
]


async def shown(api: Api, job_id: str) -> dict[str, Any]:
    (listed,) = [job for job in (await api.get("/jobs"))["jobs"] if job["id"] == job_id]
    job = await api.get(f"/jobs/{job_id}")
    options = {name: job[name] for name in SHOWN}
    assert {name: listed[name] for name in SHOWN} == options
    return options


async def test_options_are_stored_and_shown(api: Api) -> None:
    job = await api.add_job(await api.add_owner(), **OPTIONS, priority=1)
    assert await shown(api, job["id"]) == SHOWN
    read = await api.get(f"/jobs/{job['id']}")
    assert (read["priority"], read["model"]) == (1, None)


@pytest.mark.parametrize("absent", [{}, dict.fromkeys([*OPTIONS, "priority"])])
async def test_absent_options_are_null(api: Api, absent: dict[str, None]) -> None:
    job = await api.add_job(await api.add_owner(), **absent)
    assert await shown(api, job["id"]) == NOTHING
    assert (await api.get(f"/jobs/{job['id']}"))["priority"] == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maxTurns", 1),
        ("maxTurns", 100_000),
        ("maxBudgetUsd", 1),
        ("maxBudgetUsd", 0.01),
        ("maxBudgetUsd", 100_000),
        ("timeoutMinutes", 10_080),
        ("priority", 5),
        ("model", "x" * 100),
        ("model", "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.x-v1:0"),
        ("labels", ["x" * 50]),
        ("labels", [f"{n}" for n in range(20)]),
        ("labels", []),
        ("reviewers", [f"u{n}" for n in range(15)]),
        ("reviewers", ["ada_acme"]),
    ],
)
async def test_values_at_the_limits(api: Api, name: str, value: Any) -> None:
    await api.add_job(await api.add_owner(), **{name: value})


@pytest.mark.parametrize(("name", "value", "reason"), REFUSED)
async def test_invalid_value(api: Api, name: str, value: Any, reason: str) -> None:
    body = {**CODE, "clientId": await api.add_owner(), name: value}
    assert (await api.refusal(400, "POST", "/jobs", body)).startswith(reason)
    assert (await api.get("/jobs"))["total"] == 0


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_infinite_budget(api: Api, number: str) -> None:
    body = json.dumps({**CODE, "clientId": await api.add_owner(), "maxBudgetUsd": 7})
    content = body.replace("7}", f"{number}}}").encode()
    headers = {**BEARER, "Content-Type": "application/json"}
    response = await api.call("POST", "/jobs", content=content, headers=headers)
    expected = {"error": "maxBudgetUsd: Input should be a finite number."}
    assert (response.status_code, response.json()) == (400, expected)


@pytest.mark.parametrize(
    ("name", "value"), [("draft", True), ("labels", ["bot"]), ("reviewers", ["ada"])]
)
async def test_pull_request_option_of_a_task_job(api: Api, name: str, value: Any) -> None:
    body = {"clientId": await api.add_owner(), "prompt": "x", "jobType": "task", name: value}
    assert await api.refusal(400, "POST", "/jobs", body) == (
        f"A task job opens no pull request, so {name} does not apply to it. Leave it out, or post "
        "a code job."
    )


async def test_options_of_a_task_job(api: Api) -> None:
    body = {**OPTIONS, "draft": False, "labels": [], "reviewers": []}
    job = await api.add_job(await api.add_owner(), jobType="task", **body)
    expected = {**SHOWN, "draft": False, "labels": [], "reviewers": []}
    assert await shown(api, job["id"]) == expected


async def test_task_job_with_equal_branch_and_base(api: Api) -> None:
    branches = {"branchName": "x", "baseBranch": "x"}
    await api.add_job(await api.add_owner(), jobType="task", **branches)


async def test_retry_has_the_same_options(api: Api) -> None:
    options = JobOptions(
        model="claude-opus-4-5[1m]",
        max_turns=40,
        max_budget_usd=2.5,
        timeout_minutes=90,
        base_branch="release/2",
        draft=True,
        labels=("bot", "größe 🚀"),
        reviewers=("ada-l", "acme/core.team"),
    )
    job = await api.seed_job(await api.add_owner(), status=JobStatus.FAILED, options=options)
    retry = await api.post(f"/jobs/{job.id}/retry", expect=201)
    assert await shown(api, retry["id"]) == await shown(api, job.id) == SHOWN
