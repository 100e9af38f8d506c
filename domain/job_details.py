"""Views of jobs (details, pages, the queue) and the records that belong to a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain.jobs import Job, JobState, JobStatus, Phase
from domain.repositories import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStateDetails:
    """A job without its prompt, and its repository."""

    job: JobState
    repository: Repository | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetails(JobStateDetails):
    """A job with its repository, and the names of its client and feature."""

    job: Job
    client_name: str
    feature_title: str | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The filter of a job list. None means any."""

    statuses: frozenset[JobStatus] | None = None
    client_id: str | None = None
    feature_id: str | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of jobs, newest first by (created_at, id). `total` counts all matching jobs."""

    jobs: list[JobDetails]
    total: int


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A live job in the queue."""

    id: str
    title: str | None
    client_id: str
    branch_name: str
    job_type: str
    phase: Phase
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class Queue:
    """The live jobs, at most `limit` of each kind, and the totals of each kind.

    `running` jobs (oldest grant first) hold a slot or are about to release it. `waiting` jobs need
    no slot until a user answers or a limit ends. `queued` jobs wait for a slot, in queue order.
    """

    running: list[QueueEntry]
    waiting: list[QueueEntry]
    queued: list[QueueEntry]
    running_total: int
    waiting_total: int
    queued_total: int


@dataclass(frozen=True, slots=True)
class PullRequestRecord:
    """The rows of a job's branch and pull request.

    The ids are derived from the job's id, so recording twice creates one record.
    """

    branch_id: str
    pull_request_id: str
    repository_id: str
    feature_id: str | None
    branch_name: str
    branch_url: str
    number: int
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class KeptWork:
    """Undelivered work of an ended job.

    `base_sha` is the commit that the work started from. `head_sha` is the commit with the work, in
    the mirror on `host`. `patch` is the difference, for `git apply`; None if it is too long to
    store.
    """

    job_id: str
    base_sha: str
    head_sha: str
    host: str
    patch: str | None
    created_at: datetime
