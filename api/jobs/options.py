"""How a job is to run, as POST /jobs asks for it: the fields, their limits, and what fits."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from domain.errors import InvalidRequest
from domain.jobs import DEFAULT_PRIORITY, MAX_PRIORITY, MIN_PRIORITY, JobOptions, JobType
from domain.names.branches import validate_branch_name
from domain.repositories import is_owner_name

MAX_MODEL_CHARACTERS = 100
MOST_TURNS = 100_000
MOST_BUDGET_USD = 100_000
MOST_TIMEOUT_MINUTES = 10_080
MOST_LABELS = 20
MAX_LABEL_CHARACTERS = 50
MOST_REVIEWERS = 15
"""As many as GitHub takes for one pull request."""

# No leading dash: the name becomes an argument of the CLI.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*")
_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""The Unicode categories of control characters, half characters and line separators."""


def _model_name(name: str) -> str:
    if len(name) > MAX_MODEL_CHARACTERS or not _MODEL.fullmatch(name):
        raise ValueError(
            f"must be the name of a model: a letter or digit, then letters, digits and "
            f". _ - : / @ [ ], at most {MAX_MODEL_CHARACTERS} in all"
        )
    return name


def _label(name: str) -> str:
    if not name.strip():
        raise ValueError("must not be empty")
    if "," in name or any(unicodedata.category(character) in _NO_TEXT for character in name):
        raise ValueError("must not contain commas or control characters")
    return name


def _reviewer(name: str) -> str:
    owner, slash, team = name.partition("/")
    if not is_owner_name(owner) or (slash and not _TEAM.fullmatch(team)):
        raise ValueError("must be a GitHub user name, or org/team")
    return name


def _each_once(names: list[str]) -> list[str]:
    # GitHub tells neither labels nor users apart by case.
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("must not name the same twice")
    return names


Label = Annotated[str, StringConstraints(max_length=MAX_LABEL_CHARACTERS), AfterValidator(_label)]
Labels = Annotated[list[Label], Field(max_length=MOST_LABELS), AfterValidator(_each_once)]
Reviewer = Annotated[str, AfterValidator(_reviewer)]
Reviewers = Annotated[list[Reviewer], Field(max_length=MOST_REVIEWERS), AfterValidator(_each_once)]


class RequestedOptions(BaseModel):
    """The options among the fields of POST /jobs; what is left out is as the settings say."""

    model: Annotated[str, AfterValidator(_model_name)] | None = Field(
        None, description="The model; else CLAUDE_MODEL."
    )
    maxTurns: int | None = Field(
        None, strict=True, ge=1, le=MOST_TURNS, description="Most turns of one run of Claude."
    )
    maxBudgetUsd: float | None = Field(
        None,
        strict=True,
        gt=0,
        le=MOST_BUDGET_USD,
        allow_inf_nan=False,
        description="Most that all runs of the job may cost together.",
    )
    timeoutMinutes: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=MOST_TIMEOUT_MINUTES,
        description="Longest time the job may hold a machine.",
    )
    priority: int | None = Field(
        None,
        strict=True,
        ge=MIN_PRIORITY,
        le=MAX_PRIORITY,
        description=f"1 is served first; {DEFAULT_PRIORITY} unless given.",
    )
    baseBranch: str | None = Field(
        None,
        description="Where a new branch starts and what its pull request is for; what a task job "
        "reads. Else the repository's default branch.",
    )
    draft: bool | None = Field(
        None, strict=True, description="Open the pull request as a draft. Code jobs only."
    )
    labels: Labels | None = Field(None, description="Labels of the pull request. Code jobs only.")
    reviewers: Reviewers | None = Field(
        None, description="GitHub users or org/team, asked to review. Code jobs only."
    )


def checked_options(body: RequestedOptions, job_type: JobType, branch_name: str) -> JobOptions:
    """Return the options that `body` asks for.

    Raises:
        InvalidRequest: they do not fit the job's type or branch.
    """
    if job_type is JobType.TASK:
        _refuse_pull_request_options(body)
    base = body.baseBranch
    if base is not None:
        validate_branch_name(base, field="baseBranch")
    if job_type is JobType.CODE and base == branch_name:
        raise InvalidRequest(
            "baseBranch and branchName are the same. Work on a branch of another name, or leave "
            "baseBranch out."
        )
    return JobOptions(
        model=body.model,
        max_turns=body.maxTurns,
        max_budget_usd=body.maxBudgetUsd,
        timeout_minutes=body.timeoutMinutes,
        base_branch=base,
        draft=body.draft,
        labels=None if body.labels is None else tuple(body.labels),
        reviewers=None if body.reviewers is None else tuple(body.reviewers),
    )


def _refuse_pull_request_options(body: RequestedOptions) -> None:
    given = [name for name in ("draft", "labels", "reviewers") if getattr(body, name)]
    if given:
        raise InvalidRequest(
            f"A task job opens no pull request, so it takes no {given[0]}. Leave it out, or post a "
            "code job."
        )
