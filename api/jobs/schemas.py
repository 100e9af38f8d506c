"""The JSON objects of jobs: the bodies of requests, and the answers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints

from api.clients import RepositorySummary
from api.http.fields import Timestamp, Uuid, absent_if_none, text_up_to
from api.jobs.accept import AcceptedJob
from api.jobs.options import RequestedOptions
from domain.failures import FailureCode, TimeLimit
from domain.job_details import JobDetails, JobPage
from domain.jobs import (
    MAX_PROMPT_BYTES,
    MAX_TITLE_CHARACTERS,
    Job,
    JobStatus,
    JobType,
    Outcome,
    Phase,
    RetryFrom,
)
from domain.messages import Message, MessageType


def _job_type(value: object) -> object:
    if value not in list(JobType):
        raise ValueError('must be "code" or "task"')
    return value


def _retry_from(value: object) -> object:
    if value not in list(RetryFrom):
        raise ValueError('must be "publish", or left out to start from the beginning')
    return value


class NewJob(RequestedOptions):
    """POST /jobs. Either `clientId`, or `githubOrg` and `githubRepo`, are required."""

    prompt: Annotated[str, text_up_to(MAX_PROMPT_BYTES)] = Field(
        description="The task for Claude; up to 1 MiB."
    )
    clientId: Uuid | None = None
    githubOrg: str | None = None
    githubRepo: str | None = None
    branchName: str | None = Field(None, description="Required for code jobs.")
    jobType: Annotated[JobType, BeforeValidator(_job_type)] | None = Field(
        None, description='"code" (default) or "task".'
    )
    featureId: Uuid | None = None
    repositoryId: Uuid | None = None
    title: (
        Annotated[str, StringConstraints(max_length=MAX_TITLE_CHARACTERS), text_up_to(10_000)]
        | None
    ) = None
    createdByTeamMemberId: Uuid | None = None


class Retry(BaseModel):
    """POST /jobs/:id/retry. Without `from`, the new job starts from the beginning."""

    start: Annotated[RetryFrom, BeforeValidator(_retry_from)] | None = Field(
        None,
        alias="from",
        description='"publish": publish the kept work of the job, without running Claude.',
    )


class CreatedJob(BaseModel):
    """A job that was accepted. `position` counts from 1; it is 0 if it is not known."""

    id: str
    status: JobStatus
    position: int
    branchName: str
    createdAt: Timestamp

    @classmethod
    def from_domain(cls, accepted: AcceptedJob) -> Self:
        """Return the model of an accepted job."""
        job = accepted.job
        return cls(
            id=job.id,
            status=job.status,
            position=accepted.position,
            branchName=job.branch_name,
            createdAt=job.created_at,
        )


class RetriedJob(BaseModel):
    """The new job. `originalJobId` is the job in the URL."""

    id: str
    originalJobId: str
    status: JobStatus
    branchName: str

    @classmethod
    def from_domain(cls, accepted: AcceptedJob, original_id: str) -> Self:
        """Return the model of a job that retries the original."""
        job = accepted.job
        return cls(
            id=job.id, originalJobId=original_id, status=job.status, branchName=job.branch_name
        )


class CancelledJob(BaseModel):
    """A job that this request cancelled."""

    id: str
    status: Literal[JobStatus.CANCELLED]
    wasRunning: bool


class ClientReference(BaseModel):
    """The client of a job."""

    id: str
    name: str


class FeatureReference(BaseModel):
    """The feature of a job."""

    id: str
    title: str | None


class Failure(BaseModel):
    """The reason for which a job failed. `clock` is there when a time limit ran out."""

    code: FailureCode
    message: str
    remedy: str
    retryable: bool
    clock: TimeLimit | None = absent_if_none()

    @classmethod
    def from_domain(cls, job: Job) -> Self | None:
        """Return the model of a job's failure. A time limit has a remedy of its own."""
        code = job.failure_code
        if code is None:
            return None
        clock = job.clock if code is FailureCode.TIMED_OUT else None
        explained = clock or code
        return cls(
            code=code,
            message=job.error or explained.meaning,
            remedy=explained.remedy,
            retryable=explained.retryable,
            clock=clock,
        )


class Cost(BaseModel):
    """The cost that Claude reported; `estimated` when a subscription covers it."""

    usd: float
    kind: Literal["reported", "estimated"]

    @classmethod
    def from_domain(cls, job: Job) -> Self | None:
        """Return the model of a job's cost, or None if it is not known."""
        if job.usage.cost_usd is None:
            return None
        kind: Literal["reported", "estimated"]
        kind = "estimated" if job.cost_is_estimate else "reported"
        return cls(usd=job.usage.cost_usd, kind=kind)


class JobResponse(BaseModel):
    """A job with the names of its client, feature and repository."""

    id: str
    client_id: str
    feature_id: str | None
    repository_id: str
    created_by_team_member_id: str | None
    retry_of: str | None
    retry_from: RetryFrom | None
    title: str | None
    job_type: JobType
    status: JobStatus
    phase: Phase | None
    outcome: Outcome | None
    failure_code: FailureCode | None
    error: str | None
    failure: Failure | None
    prompt: str
    result: str | None
    branch_name: str
    base_branch: str | None
    draft: bool | None
    labels: tuple[str, ...] | None
    reviewers: tuple[str, ...] | None
    base_sha: str | None
    head_sha: str | None
    pr_url: str | None
    pr_number: int | None
    files_changed: int | None
    code_branch_id: str | None
    code_pull_request_id: str | None
    host: str | None
    worktree_path: str | None
    pid: int | None
    lease: int
    attempt: int
    session_id: str | None
    model: str | None
    requested_model: str | None
    max_turns: int | None
    max_budget_usd: float | None
    timeout_minutes: int | None
    exit_code: int | None
    num_turns: int
    total_cost_usd: float | None
    cost: Cost | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    claude_seconds: float
    priority: int
    created_at: Timestamp
    queued_at: Timestamp
    started_at: Timestamp | None
    resumes_at: Timestamp | None
    completed_at: Timestamp | None
    updated_at: Timestamp
    client: ClientReference
    feature: FeatureReference | None
    repository: RepositorySummary | None

    @classmethod
    def from_domain(cls, details: JobDetails) -> Self:
        """Return the model of a job."""
        job, usage, options = details.job, details.job.usage, details.job.options
        return cls(
            id=job.id,
            client_id=job.client_id,
            feature_id=job.feature_id,
            repository_id=job.repository_id,
            created_by_team_member_id=job.created_by_team_member_id,
            retry_of=job.retry_of,
            retry_from=job.retry_from,
            title=job.title,
            job_type=job.job_type,
            status=job.status,
            phase=job.phase,
            outcome=job.outcome,
            failure_code=job.failure_code,
            error=job.error,
            failure=Failure.from_domain(job),
            prompt=job.prompt,
            result=job.result,
            branch_name=job.branch_name,
            base_branch=options.base_branch,
            draft=options.draft,
            labels=options.labels,
            reviewers=options.reviewers,
            base_sha=job.base_sha,
            head_sha=job.head_sha,
            pr_url=job.pr_url,
            pr_number=job.pr_number,
            files_changed=job.files_changed,
            code_branch_id=job.code_branch_id,
            code_pull_request_id=job.code_pull_request_id,
            host=job.host,
            worktree_path=job.worktree_path,
            pid=job.pid,
            lease=job.lease,
            attempt=job.attempt,
            session_id=job.session_id,
            model=job.model,
            requested_model=options.model,
            max_turns=options.max_turns,
            max_budget_usd=options.max_budget_usd,
            timeout_minutes=options.timeout_minutes,
            exit_code=job.exit_code,
            num_turns=usage.turns,
            total_cost_usd=usage.cost_usd,
            cost=Cost.from_domain(job),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_creation_tokens=usage.cache_creation_tokens,
            claude_seconds=job.claude_seconds,
            priority=job.priority,
            created_at=job.created_at,
            queued_at=job.queued_at,
            started_at=job.started_at,
            resumes_at=job.resumes_at,
            completed_at=job.completed_at,
            updated_at=job.updated_at,
            client=ClientReference(id=job.client_id, name=details.client_name),
            feature=_feature(details),
            repository=_repository(details),
        )


def _feature(details: JobDetails) -> FeatureReference | None:
    if not details.job.feature_id:
        return None
    return FeatureReference(id=details.job.feature_id, title=details.feature_title)


def _repository(details: JobDetails) -> RepositorySummary | None:
    return RepositorySummary.from_domain(details.repository) if details.repository else None


class JobList(BaseModel):
    """A page of jobs. `total` counts all jobs that match."""

    jobs: list[JobResponse]
    total: int

    @classmethod
    def from_domain(cls, page: JobPage) -> Self:
        """Return the model of a page."""
        return cls(jobs=[JobResponse.from_domain(job) for job in page.jobs], total=page.total)


class MessageResponse(BaseModel):
    """A message of a job's log. `seq` grows by one, from 1."""

    id: str
    job_id: str
    seq: int
    type: MessageType
    content: str
    created_at: Timestamp

    @classmethod
    def from_domain(cls, message: Message) -> Self:
        """Return the model of a message."""
        return cls(
            id=message.id,
            job_id=message.job_id,
            seq=message.seq,
            type=message.type,
            content=message.content,
            created_at=message.created_at,
        )


class MessagePage(BaseModel):
    """A page of a job's messages. `next_after` is null when there are no more messages yet."""

    messages: list[MessageResponse]
    next_after: int | None


class JobWithMessages(JobResponse):
    """A job; `messages` is null unless the request asks for them."""

    messages: list[MessageResponse] | None

    @classmethod
    def with_messages(cls, details: JobDetails, messages: list[Message] | None) -> Self:
        """Return the model of a job and its messages."""
        job = JobResponse.from_domain(details)
        shown = None if messages is None else [MessageResponse.from_domain(m) for m in messages]
        return cls(**dict(job), messages=shown)
