"""A job: its request, its state and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from domain.failures import FailureCode, TimeLimit

MAX_PROMPT_BYTES = 1024 * 1024
MAX_TITLE_CHARACTERS = 500
MAX_TURNS = 100_000
MAX_TIMEOUT_MINUTES = 7 * 24 * 60
DEFAULT_PRIORITY = 3
MIN_PRIORITY, MAX_PRIORITY = 1, 5
"""1 is served first."""


class JobStatus(StrEnum):
    """The five statuses of the API. The last three are final and never change again."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


LIVE = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})
FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class JobType(StrEnum):
    """`code` ends in a pull request; `task` is a read-only conversation."""

    CODE = "code"
    TASK = "task"


class Phase(StrEnum):
    """The current activity of a live job. A cancelled job may still be cleaning up."""

    WAITING_FOR_SLOT = "waiting_for_slot"
    PREPARING = "preparing"
    WORKING = "working"
    WAITING_FOR_USER = "waiting_for_user"
    WAITING_FOR_LIMIT = "waiting_for_limit"
    PUBLISHING = "publishing"
    CLEANING_UP = "cleaning_up"


HOLDS_SLOT = frozenset({Phase.PREPARING, Phase.WORKING, Phase.PUBLISHING})


class Outcome(StrEnum):
    """How a completed job ended."""

    PULL_REQUEST = "pull_request"
    NO_CHANGES = "no_changes"
    ANSWERED = "answered"


class RetryFrom(StrEnum):
    """A late start of a retry, with the undelivered work of its original."""

    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The options of one job. None means the value from the settings.

    `max_turns` limits one run of Claude. `max_budget_usd` limits all runs of the job together.
    `timeout_minutes` limits the time that the job holds a host. `base_branch` is the start of a new
    branch and the target of the pull request; None means the repository's default branch. `labels`
    and `reviewers` (GitHub users, or `org/team`) are set on the pull request.
    """

    model: str | None = None
    max_turns: int | None = None
    max_budget_usd: float | None = None
    timeout_minutes: int | None = None
    base_branch: str | None = None
    draft: bool | None = None
    labels: tuple[str, ...] | None = None
    reviewers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage that Claude reported, summed over all turns and attempts of a job.

    `cost_usd` is None, not 0, if no turn reported a cost.
    """

    turns: int = 0
    cost_usd: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        known = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        return Usage(
            turns=self.turns + other.turns,
            cost_usd=sum(known) if known else None,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_creation_tokens=self.cache_creation_tokens + other.cache_creation_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        """Return the increase since an earlier report; no value is negative."""
        cost = self.cost_usd
        return Usage(
            turns=max(0, self.turns - other.turns),
            cost_usd=None if cost is None else max(0.0, cost - (other.cost_usd or 0.0)),
            input_tokens=max(0, self.input_tokens - other.input_tokens),
            output_tokens=max(0, self.output_tokens - other.output_tokens),
            cache_read_tokens=max(0, self.cache_read_tokens - other.cache_read_tokens),
            cache_creation_tokens=max(0, self.cache_creation_tokens - other.cache_creation_tokens),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A row of `agent_jobs` without its prompt, which has up to `MAX_PROMPT_BYTES`.

    Times are aware and in UTC; ids are lower-case UUID text.
    `queued_at` orders the queue. It is the creation time, and for a conversation the time when its
    next turn began to wait.
    `lease` is the number of the last slot grant, 0 before the first. A write with an older lease
    changes nothing. `started_at` is the time of the first grant.
    `claude_seconds` is the running time of Claude's processes over all turns and attempts.
    `resumes_at` is the time when a job that waits for a limit continues.
    `clock` is the time limit that ran out, with `failure_code` timed_out.
    `cost_is_estimate` means that the credential is a subscription, so `usage.cost_usd` is not
    billed.
    `retry_from` is set on a retry of `retry_of` that skips steps.
    """

    id: str
    client_id: str
    repository_id: str
    branch_name: str
    created_at: datetime
    queued_at: datetime
    updated_at: datetime
    job_type: JobType = JobType.CODE
    status: JobStatus = JobStatus.QUEUED
    phase: Phase | None = Phase.WAITING_FOR_SLOT
    title: str | None = None
    feature_id: str | None = None
    created_by_team_member_id: str | None = None
    retry_of: str | None = None
    retry_from: RetryFrom | None = None
    options: JobOptions = field(default_factory=JobOptions)
    priority: int = DEFAULT_PRIORITY
    lease: int = 0
    attempt: int = 0
    host: str | None = None
    worktree_path: str | None = None
    pid: int | None = None
    session_id: str | None = None
    model: str | None = None
    base_sha: str | None = None
    head_sha: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    exit_code: int | None = None
    outcome: Outcome | None = None
    failure_code: FailureCode | None = None
    clock: TimeLimit | None = None
    resumes_at: datetime | None = None
    error: str | None = None
    result: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_is_estimate: bool = False
    claude_seconds: float = 0.0
    pr_url: str | None = None
    pr_number: int | None = None
    files_changed: int | None = None
    code_branch_id: str | None = None
    code_pull_request_id: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether the job can still change."""
        return self.status in LIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(JobState):
    """A row of `agent_jobs`."""

    prompt: str
