"""Views of jobs: one with its names, a page, the queue, and the records beside a job's row."""

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
    """Which jobs to list; None means any."""

    statuses: frozenset[JobStatus] | None = None
    client_id: str | None = None
    feature_id: str | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page, newest first (created_at, then id, descending); `total` counts all that match."""

    jobs: list[JobDetails]
    total: int


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A live job as the queue shows it, without its prompt."""

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
    """The live jobs, at most `limit` of each kind, and how many there are of each.

    `running` jobs (oldest grant first) hold a slot or are about to release it. `waiting` jobs need
    no slot until a user answers or a limit ends. `queued` jobs wait for a slot, first come, first
    served.
    """

    running: list[QueueEntry]
    waiting: list[QueueEntry]
    queued: list[QueueEntry]
    running_total: int
    waiting_total: int
    queued_total: int


@dataclass(frozen=True, slots=True)
class PullRequestRecord:
    """The pull request and branch of a job, as recorded in their two tables.

    The caller derives the ids from the job's id, so that recording twice makes one record.
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

    `base_sha` is the commit that it started from. `head_sha` is the commit that keeps it in the
    mirror of `host`. `patch` turns the one into the other with `git apply`; it is None when it is
    too long to be stored.
    """

    job_id: str
    base_sha: str
    head_sha: str
    host: str
    patch: str | None
    created_at: datetime
