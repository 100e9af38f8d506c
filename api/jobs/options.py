"""The options of a job in POST /jobs: their fields and limits, and how they fit together."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from domain.errors import InvalidRequest
from domain.jobs import (
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    MAX_TIMEOUT_MINUTES,
    MAX_TURNS,
    MIN_PRIORITY,
    JobOptions,
    JobType,
)
from domain.names.branches import validate_branch_name
from domain.repositories import is_owner_name

MAX_MODEL_CHARACTERS = 100
MAX_BUDGET_USD = 100_000
MAX_LABELS = 20
MAX_LABEL_CHARACTERS = 50
MAX_REVIEWERS = 15
"""GitHub's limit for one pull request."""

# No leading dash: the name becomes an argument of the CLI.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*")
_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTROL_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, surrogates, and line and paragraph separators."""


def _model_name(name: str) -> str:
    if len(name) > MAX_MODEL_CHARACTERS or not _MODEL.fullmatch(name):
        raise ValueError(
            f"must be the name of a model: a letter or digit, then letters, digits and "
            f". _ - : / @ [ ], at most {MAX_MODEL_CHARACTERS} characters"
        )
    return name


def _label(name: str) -> str:
    if not name.strip():
        raise ValueError("must not be empty")
    if "," in name or any(
        unicodedata.category(character) in _CONTROL_CATEGORIES for character in name
    ):
        raise ValueError("must not contain commas or control characters")
    return name


def _reviewer(name: str) -> str:
    owner, slash, team = name.partition("/")
    if not is_owner_name(owner) or (slash and not _TEAM.fullmatch(team)):
        raise ValueError("must be a GitHub user name, or org/team")
    return name


def _unique(names: list[str]) -> list[str]:
    # GitHub ignores the case of labels and users.
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("must not contain duplicates")
    return names


Label = Annotated[str, StringConstraints(max_length=MAX_LABEL_CHARACTERS), AfterValidator(_label)]
Labels = Annotated[list[Label], Field(max_length=MAX_LABELS), AfterValidator(_unique)]
Reviewer = Annotated[str, AfterValidator(_reviewer)]
Reviewers = Annotated[list[Reviewer], Field(max_length=MAX_REVIEWERS), AfterValidator(_unique)]


class RequestedOptions(BaseModel):
    """The options among the fields of POST /jobs. The settings have their defaults."""

    model: Annotated[str, AfterValidator(_model_name)] | None = Field(
        None, description="The model; CLAUDE_MODEL by default."
    )
    maxTurns: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=MAX_TURNS,
        description="Maximum model calls of one run of Claude.",
    )
    maxBudgetUsd: float | None = Field(
        None,
        strict=True,
        gt=0,
        le=MAX_BUDGET_USD,
        allow_inf_nan=False,
        description="Maximum cost of all runs of the job together.",
    )
    timeoutMinutes: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=MAX_TIMEOUT_MINUTES,
        description="Maximum time for which the job may hold a host.",
    )
    priority: int | None = Field(
        None,
        strict=True,
        ge=MIN_PRIORITY,
        le=MAX_PRIORITY,
        description=f"1 is first and 5 is last; {DEFAULT_PRIORITY} by default.",
    )
    baseBranch: str | None = Field(
        None,
        description="The branch from which a new branch starts and into which its pull request "
        "merges; for a task job, the branch to read. The default branch by default.",
    )
    draft: bool | None = Field(
        None, strict=True, description="Open the pull request as a draft. Code jobs only."
    )
    labels: Labels | None = Field(None, description="Labels of the pull request. Code jobs only.")
    reviewers: Reviewers | None = Field(
        None, description="GitHub users or org/team who are asked for a review. Code jobs only."
    )


def job_options(body: RequestedOptions, job_type: JobType, branch_name: str) -> JobOptions:
    """Return the options in `body`.

    Raises:
        InvalidRequest: an option does not fit the job's type or branch.
    """
    if job_type is JobType.TASK:
        _refuse_pull_request_options(body)
    base = body.baseBranch
    if base is not None:
        validate_branch_name(base, field="baseBranch")
    if job_type is JobType.CODE and base == branch_name:
        raise InvalidRequest(
            "baseBranch and branchName are the same. Use another branchName, or leave baseBranch "
            "out."
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
            f"A task job opens no pull request, so {given[0]} does not apply to it. Leave it out, "
            "or post a code job."
        )
