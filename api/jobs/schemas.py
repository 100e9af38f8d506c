"""The bodies of requests and answers, in the spelling of the API specification."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from api.jobs.options import RequestedOptions
from domain.jobs import MAX_PROMPT_BYTES, MAX_TITLE_CHARACTERS, JobType, RetryFrom
from domain.messages import MAX_USER_MESSAGE_BYTES, sanitize_text
from domain.names.ids import is_id


def _uuid(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be a UUID")
    return text.lower()


def _text_up_to(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if not text.strip():
            raise ValueError("must not be empty")
        if len(text.encode(errors="surrogatepass")) > limit:
            raise ValueError(f"must be at most {limit} bytes in UTF-8")
        if sanitize_text(text) != text:
            raise ValueError("must not contain NUL characters or lone surrogates")
        return text

    return AfterValidator(check)


def _one_of(text: object) -> object:
    if text not in list(JobType):
        raise ValueError('must be "code" or "task"')
    return text


def _retry_from(text: object) -> object:
    if text not in list(RetryFrom):
        raise ValueError('must be "publish", or left out to begin anew')
    return text


Uuid = Annotated[str, AfterValidator(_uuid)]
Prompt = Annotated[str, _text_up_to(MAX_PROMPT_BYTES)]
UserMessage = Annotated[str, _text_up_to(MAX_USER_MESSAGE_BYTES)]
Title = Annotated[str, StringConstraints(max_length=MAX_TITLE_CHARACTERS), _text_up_to(10_000)]
Kind = Annotated[JobType, BeforeValidator(_one_of)]


class NewJob(RequestedOptions):
    """POST /jobs."""

    prompt: Prompt = Field(description="What Claude is to do; up to 1 MiB.")
    clientId: Uuid | None = None
    githubOrg: str | None = None
    githubRepo: str | None = None
    branchName: str | None = Field(None, description="Required for code jobs.")
    jobType: Kind | None = Field(None, description='"code" (default) or "task".')
    featureId: Uuid | None = None
    repositoryId: Uuid | None = None
    title: Title | None = None
    createdByTeamMemberId: Uuid | None = None


class Retry(BaseModel):
    """POST /jobs/:id/retry. Without `from`, the new job does everything again."""

    start: Annotated[RetryFrom, BeforeValidator(_retry_from)] | None = Field(
        None,
        alias="from",
        description='"publish": publish the work that the job left, without running Claude.',
    )


class NewClient(BaseModel):
    """POST /clients."""

    name: Annotated[str, StringConstraints(max_length=200), _text_up_to(800)]


class NewRepository(BaseModel):
    """POST /clients/:id/repository."""

    githubOrg: str
    githubRepo: str
    defaultBranch: str = "main"


class NewMessage(BaseModel):
    """POST /jobs/:id/message."""

    message: UserMessage


class Error(BaseModel):
    """Every error."""

    error: str = Field(description="What went wrong and what to do.")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class RepositoryAnswer(_Answer):
    """A repository."""

    id: str
    owner_name: str
    repo_name: str
    default_branch: str


class ClientAnswer(_Answer):
    """GET /clients/:id."""

    id: str
    name: str
    repository: RepositoryAnswer | None


class ClientWithRepositories(_Answer):
    """An entry of GET /clients."""

    id: str
    name: str
    repositories: list[RepositoryAnswer]


class ClientsAnswer(_Answer):
    """GET /clients."""

    clients: list[ClientWithRepositories]


class MessageAnswer(_Answer):
    """A line of a transcript."""

    id: str
    job_id: str
    seq: int
    type: str
    content: str
    created_at: str


class MessagesAnswer(_Answer):
    """GET /jobs/:id/messages. `next_after` continues the reading; null at the end so far."""

    messages: list[MessageAnswer]
    next_after: int | None


class Failure(_Answer):
    """Why a job failed; `clock` is there when a time limit ran out."""

    code: str
    message: str
    remedy: str
    retryable: bool
    clock: str | None = None


class Cost(_Answer):
    """What Claude reported; `estimated` when a subscription pays and nobody is billed it."""

    usd: float
    kind: Literal["reported", "estimated"]


class JobAnswer(_Answer):
    """A job: its whole row, and the names of what it refers to."""

    id: str
    status: str
    phase: str | None
    job_type: str
    prompt: str
    branch_name: str
    base_branch: str | None
    draft: bool | None
    labels: list[str] | None
    reviewers: list[str] | None
    requested_model: str | None
    max_turns: int | None
    max_budget_usd: float | None
    timeout_minutes: int | None
    priority: int
    resumes_at: str | None
    retry_from: str | None
    failure: Failure | None
    cost: Cost | None
    client: dict[str, Any]
    feature: dict[str, Any] | None
    repository: dict[str, Any] | None
    messages: list[MessageAnswer] | None = None


class JobsAnswer(_Answer):
    """GET /jobs."""

    jobs: list[JobAnswer]
    total: int


class KeptPatch(_Answer):
    """GET /jobs/:id/patch. `git apply` takes `patch` on the commit `base_sha`."""

    id: str
    base_sha: str
    head_sha: str
    branch_name: str
    patch: str
    created_at: str


class CreatedJob(_Answer):
    """POST /jobs."""

    id: str
    status: str
    position: int
    branchName: str
    createdAt: str


class CancelledJob(_Answer):
    """POST /jobs/:id/cancel."""

    id: str
    status: str
    wasRunning: bool


class RetriedJob(_Answer):
    """POST /jobs/:id/retry."""

    id: str
    originalJobId: str
    status: str
    branchName: str


class SentMessage(_Answer):
    """POST /jobs/:id/message."""

    id: str
    messageSent: bool
    messageId: str


class CompletingJob(_Answer):
    """POST /jobs/:id/complete."""

    id: str
    status: str


class QueueAnswer(_Answer):
    """GET /queue."""

    running: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    queued: list[dict[str, Any]]
    maxConcurrent: int


class SyncAnswer(_Answer):
    """POST /sync."""

    synced: list[dict[str, Any]]


class CloneAnswer(_Answer):
    """POST /repos/clone."""

    cloned: list[dict[str, Any]]


class ClonedRepository(_Answer):
    """POST /repos/:id/clone."""

    success: bool
    repo: str
    path: str


class HealthAnswer(_Answer):
    """GET /health."""

    status: str
    queue: dict[str, Any]
    claude: dict[str, Any]
    git: dict[str, Any]
