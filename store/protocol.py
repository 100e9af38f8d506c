"""The operations the product needs of its store, and what every adapter promises.

Promises that hold for each method, in every adapter:

- Writes are repeatable: ids are made by the caller, a repeated write changes nothing and gives the
  same answer.
- An outage raises `DependencyUnavailable(system="store")`, never an empty answer. It is raised
  after the adapter's own short retries.
- A malformed id is answered like an unknown one.
- Times are aware UTC datetimes, to the microsecond, in and out.
- Text given to the store is stored as `domain.messages.storable` leaves it; a patch and an answer
  unchanged, whatever their length, or refused with `InvalidRequest` where `is_storable` is false.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypedDict

from domain.failures import Clock, FailureCode
from domain.hosts import Host
from domain.jobs import Job, JobStatus, Outcome, Phase, Usage
from domain.messages import Message, NewMessage
from domain.repositories import Client, Repository


@dataclass(frozen=True, slots=True)
class ClientDetails:
    """A client with its GitHub repositories, oldest first."""

    client: Client
    repositories: list[Repository]


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job with the names of what it refers to."""

    job: Job
    client_name: str
    repository: Repository | None
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
    """A live job as the queue shows it. Read without its prompt."""

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

    `running` (oldest grant first) hold a slot or are about to give it back; `waiting` need no slot
    until a user or a limit lets them go on; `queued` wait for a slot, first come first.
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

    Ids are derived from the job's id by the caller, so that recording twice is one record.
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
    """Work of an ended job that was not delivered.

    `base_sha` is the commit it began from, `head_sha` the commit that keeps it in the mirror of
    `host`, and `patch` what `git apply` makes of the one the other; None when that is too long to
    be stored.
    """

    job_id: str
    base_sha: str
    head_sha: str
    host: str
    patch: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """What a client's Idempotency-Key stands for.

    `scope` is the method and path; with `key` it has at most 2,000 bytes, which is what an index of
    Postgres takes. `fingerprint` tells whether a request is the same; `resource_id`
    (a UUID) is the id of what it makes; `answer` is the JSON text of the first answer, None while
    there is none yet, and `status` its HTTP status.
    """

    scope: str
    key: str
    fingerprint: str
    resource_id: str
    created_at: datetime
    status: int | None = None
    answer: str | None = None


class JobChanges(TypedDict, total=False):
    """The columns an update may set. What is absent stays."""

    status: JobStatus
    phase: Phase | None
    queued_at: datetime
    started_at: datetime
    completed_at: datetime | None
    lease: int
    attempt: int
    host: str | None
    worktree_path: str | None
    pid: int | None
    session_id: str | None
    model: str | None
    base_sha: str | None
    head_sha: str | None
    exit_code: int | None
    outcome: Outcome | None
    failure_code: FailureCode | None
    clock: Clock | None
    resumes_at: datetime | None
    error: str | None
    result: str | None
    usage: Usage
    cost_is_estimate: bool
    claude_seconds: float
    pr_url: str | None
    pr_number: int | None
    files_changed: int | None
    code_branch_id: str | None
    code_pull_request_id: str | None


@dataclass(frozen=True, slots=True)
class Guard:
    """What must be true of a row for an update to happen, checked in the same statement.

    `lease` demands that exact lease; `lease_below` demands an older one.
    """

    statuses: frozenset[JobStatus]
    lease: int | None = None
    lease_below: int | None = None


class Store(Protocol):
    """Everything that is kept. One instance serves a process; its methods may run at once."""

    async def open(self) -> None:
        """Make the store ready: connect, check the schema. Repeatable."""

    async def close(self) -> None:
        """Let go of connections. Repeatable."""

    async def ping(self) -> None:
        """Return if the store answers, else raise `DependencyUnavailable`."""

    async def create_client(self, client: Client) -> None:
        """Insert a client."""

    async def list_clients(self) -> list[ClientDetails]:
        """Return every client with its repositories, ordered by name, then id."""

    async def get_client(self, client_id: str) -> ClientDetails | None:
        """Return a client with its repositories."""

    async def add_repository(self, repository: Repository) -> None:
        """Insert a repository.

        Raises:
            Conflict: the client already has a repository of that owner and name, in any case.
        """

    async def get_repository(self, repository_id: str) -> Repository | None:
        """Return a repository."""

    async def find_repository(self, owner_name: str, repo_name: str) -> Repository | None:
        """Return the oldest repository of that owner and name, in any case."""

    async def list_repositories(self) -> list[Repository]:
        """Return every GitHub repository, ordered by owner, name, id."""

    async def feature_exists(self, feature_id: str) -> bool:
        """Tell whether there is such a feature."""

    async def team_member_exists(self, team_member_id: str) -> bool:
        """Tell whether there is such a team member."""

    async def create_job(self, job: Job) -> None:
        """Insert a job.

        Raises:
            Conflict: the job is a code job and another live code job holds its branch of its
                repository. Decided by a unique index, so two at once cannot both pass.
            InvalidRequest: something it refers to does not exist.
        """

    async def get_job(self, job_id: str) -> JobDetails | None:
        """Return a job."""

    async def list_jobs(self, where: JobFilter, limit: int, offset: int) -> JobPage:
        """Return a page of jobs."""

    async def update_job(self, job_id: str, changes: JobChanges, when: Guard) -> bool:
        """Change a job if `when` holds; `updated_at` is set too. Returns whether it was changed.

        A repeat after a lost answer must be told from a lost race by the caller's reading the row:
        the second of two equal updates whose guard no longer holds returns False.
        """

    async def add_usage(
        self, job_id: str, report_id: str, usage: Usage, claude_seconds: float
    ) -> None:
        """Add a turn's usage to the job's sums, once per `report_id` (a UUID)."""

    async def queue_position(self, job_id: str) -> int:
        """Return the 1-based place among the jobs that wait for a slot; 0 when it waits for none.

        The order is priority (1 first), `queued_at`, id.
        """

    async def first_in_queue(self, beyond: Collection[str]) -> str | None:
        """Return the id of the job whose turn for a slot it is, those in `beyond` left out."""

    async def queue(self, limit: int) -> Queue:
        """Return the live jobs, at most `limit` of each kind."""

    async def jobs_to_reconcile(self, older_than: datetime, after_id: str, limit: int) -> list[Job]:
        """Return live jobs, and ended ones with a phase, not updated since `older_than`, by id.

        Only ids above `after_id` ("" for the first page); prompts are left out (empty).
        """

    async def put_in_inbox(self, job_id: str, message: NewMessage) -> None:
        """Keep a user's message until the job takes it (`take_from_inbox`) or refuses it."""

    async def take_from_inbox(self, job_id: str, message_id: str) -> bool:
        """Move a message from the inbox to the end of the transcript. Repeatable.

        Returns:
            Whether the transcript holds the message now; False when there never was such a one.
        """

    async def append_messages(
        self, job_id: str, messages: Sequence[NewMessage], lease: int | None = None
    ) -> None:
        """Store lines at the end of a job's transcript, in order, all or none.

        The store allots `seq`. Lines whose id is stored already are skipped. With `lease`, nothing
        is stored unless it is the job's present lease.

        Raises:
            LeaseLost: the job has another lease by now.
            NotFound: no such job.
        """

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message]:
        """Return lines with `seq` > `after`, in order."""

    async def messages_by_id(self, job_id: str, ids: Sequence[str]) -> list[Message]:
        """Return those of the job's lines that have these ids, ordered by `seq`."""

    async def save_session(self, job_id: str, session_id: str, transcript: bytes) -> None:
        """Keep the CLI's transcript of a job's session, in place of the one before."""

    async def load_session(self, job_id: str) -> tuple[str, bytes] | None:
        """Return (session id, transcript) as last saved."""

    async def record_pull_request(self, record: PullRequestRecord) -> None:
        """Insert the branch and pull request rows, or leave them as they are."""

    async def report_host(self, host: Host) -> None:
        """Insert or replace a host's report, keyed by (id, boot_id)."""

    async def live_hosts(self, seen_since: datetime) -> list[Host]:
        """Return hosts seen since then, ordered by id, newest report first."""

    async def remove_host(self, host_id: str, boot_id: str) -> None:
        """Forget a host's process that has ended."""

    async def forget_hosts(self, seen_before: datetime) -> None:
        """Forget the hosts whose last report is older."""

    async def keep_work(self, work: KeptWork) -> None:
        """Keep a job's undelivered work, in place of what was kept for it before.

        Raises:
            NotFound: no such job.
        """

    async def kept_work(self, job_id: str) -> KeptWork | None:
        """Return a job's undelivered work."""

    async def forget_work(self, kept_before: datetime, spared: Collection[str]) -> None:
        """Forget the work that was kept before then, but not that of the jobs in `spared`."""

    async def hold_credential(self, credential: str, until: datetime) -> None:
        """Let no job start on a credential before `until`, or the later time that is set already.

        Args:
            credential: its fingerprint, never the credential.
            until: when the limit ends.
        """

    async def credential_held_until(self, credential: str) -> datetime | None:
        """Return the time last set by `hold_credential`, which may be past."""

    async def claim_key(self, request: KeyedRequest) -> KeyedRequest:
        """Insert what a key stands for, or leave it. Returns what it stands for now.

        Of claims of one (scope, key) at once, one is inserted, and all return that one.
        """

    async def answer_key(self, scope: str, key: str, status: int, answer: str) -> KeyedRequest:
        """Set the answer of a claimed key unless it has one. Returns what it stands for now.

        Raises:
            NotFound: the key was not claimed, or was released.
        """

    async def share_key(self, scope: str, key: str, resource_id: str) -> bool:
        """Let another request make the thing of this id, too; then the claim is never released.

        Returns:
            Whether the key stands for that id and has no answer. If not, it was answered, released
            or claimed anew.
        """

    async def release_key(self, scope: str, key: str, resource_id: str) -> None:
        """Forget a key that stands for this id, so that the request can be made again.

        One that has an answer stays, and one that is shared, whose other request may make the
        thing yet.
        """

    async def forget_keys(self, claimed_before: datetime) -> None:
        """Forget the keys claimed before then."""
