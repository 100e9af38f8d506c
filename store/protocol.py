"""The operations that the product needs of its store, and the promises of every adapter.

Promises that hold for each method, in every adapter:

- Writes are idempotent: the caller makes the ids, and a repeated write changes nothing and returns
  the same answer.
- An outage raises `DependencyUnavailable(system="store")`, after the adapter's own short retries.
  It never looks like an empty answer.
- A malformed id is answered like an unknown one. In a new row it raises `InvalidRequest`.
- Times are aware UTC datetimes, to the microsecond, in and out.
- Text is stored as `domain.messages.sanitize_text` returns it. A patch or an answer is stored
  unchanged, whatever its length. It is refused with `InvalidRequest` where `is_storable` is false.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypedDict

from domain.failures import FailureCode, TimeLimit
from domain.hosts import Host
from domain.job_details import (
    JobDetails,
    JobFilter,
    JobPage,
    JobStateDetails,
    KeptWork,
    PullRequestRecord,
    Queue,
)
from domain.jobs import Job, JobState, JobStatus, Outcome, Phase, Usage
from domain.keyed_requests import KeyedRequest
from domain.messages import Message, NewMessage
from domain.repositories import Client, ClientDetails, Repository


class JobChanges(TypedDict, total=False):
    """The columns that an update sets. Absent ones stay as they are."""

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
    clock: TimeLimit | None
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
    """The conditions of an update, checked in the same statement.

    `lease` demands that exact lease; `lease_below` demands an older one.
    """

    statuses: frozenset[JobStatus]
    lease: int | None = None
    lease_below: int | None = None


class ClientStore(Protocol):
    """Clients, their repositories, and the other rows that a job may refer to."""

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
            InvalidRequest: the client does not exist.
        """

    async def get_repository(self, repository_id: str) -> Repository | None:
        """Return a repository."""

    async def find_repository(self, owner_name: str, repo_name: str) -> Repository | None:
        """Return the oldest repository of that owner and name, in any case."""

    async def list_repositories(self) -> list[Repository]:
        """Return every GitHub repository, ordered by owner, name, id."""

    async def feature_exists(self, feature_id: str) -> bool:
        """Return whether the feature exists."""

    async def team_member_exists(self, team_member_id: str) -> bool:
        """Return whether the team member exists."""


class JobStore(Protocol):
    """Single jobs."""

    async def create_job(self, job: Job) -> None:
        """Insert a job.

        Raises:
            Conflict: the job is a code job and another live code job holds its branch of its
                repository. A unique index decides, so of two at once only one passes.
            InvalidRequest: something that the job refers to does not exist.
        """

    async def get_job(self, job_id: str) -> JobDetails | None:
        """Return a job with the names of its client, repository and feature."""

    async def get_job_state(self, job_id: str) -> JobStateDetails | None:
        """Return a job without its prompt, with its repository."""

    async def update_job(self, job_id: str, changes: JobChanges, when: Guard) -> bool:
        """Change a job if `when` holds, and set `updated_at`. Return whether it was changed.

        A repeat returns False once its own first try has made the guard false. The caller reads the
        row to distinguish this from a lost race.

        Raises:
            Conflict: another live code job holds the branch.
            InvalidRequest: something that the change refers to does not exist.
        """

    async def add_usage(
        self, job_id: str, report_id: str, usage: Usage, claude_seconds: float
    ) -> None:
        """Add a turn's usage to the job's sums, once per `report_id` (a UUID).

        Raises:
            NotFound: no such job.
        """

    async def jobs_to_reconcile(
        self, older_than: datetime, after_id: str, limit: int
    ) -> list[JobState]:
        """Return live jobs, and ended ones with a phase, not updated since `older_than`, by id.

        Only ids above `after_id` are returned ("" for the first page).
        """


class JobListStore(Protocol):
    """Pages of jobs."""

    async def list_jobs(self, where: JobFilter, limit: int, offset: int) -> JobPage:
        """Return a page of jobs."""


class QueueStore(Protocol):
    """The live jobs in the order in which they get slots."""

    async def queue_position(self, job_id: str) -> int:
        """Return the 1-based place among the jobs that wait for a slot; 0 if it waits for none.

        The order is priority (1 first), `queued_at`, id.
        """

    async def first_in_queue(self, beyond: Collection[str]) -> str | None:
        """Return the id of the first job that waits for a slot and is not in `beyond`."""

    async def queue(self, limit: int) -> Queue:
        """Return the live jobs, at most `limit` of each kind."""


class MessageStore(Protocol):
    """The transcripts of jobs, and the user's messages that wait to become part of them."""

    async def put_in_inbox(self, job_id: str, message: NewMessage) -> None:
        """Keep a user's message until the job takes it (`take_from_inbox`) or refuses it.

        Raises:
            NotFound: no such job.
        """

    async def take_from_inbox(self, job_id: str, message_id: str) -> bool:
        """Move a message from the inbox to the end of the transcript.

        Returns:
            Whether the transcript has the message now. False if the message is unknown.
        """

    async def append_messages(
        self, job_id: str, messages: Sequence[NewMessage], lease: int | None = None
    ) -> None:
        """Store lines at the end of a job's transcript, in order, all or none.

        The store assigns `seq`. Lines whose id is stored already are skipped. With `lease`, nothing
        is stored unless it is the job's current lease.

        Raises:
            LeaseLost: the job has another lease.
            NotFound: no such job.
        """

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message]:
        """Return lines with `seq` > `after`, in order."""

    async def messages_by_id(self, job_id: str, ids: Sequence[str]) -> list[Message]:
        """Return those of the job's lines that have these ids, ordered by `seq`."""


class SessionStore(Protocol):
    """The files from which Claude's CLI resumes a conversation."""

    async def save_session(self, job_id: str, session_id: str, transcript: bytes) -> None:
        """Store the CLI's transcript of a job's session, in place of the previous one.

        Raises:
            NotFound: no such job.
        """

    async def load_session(self, job_id: str) -> tuple[str, bytes] | None:
        """Return (session id, transcript) as last saved."""


class PullRequestStore(Protocol):
    """The branches and pull requests of jobs."""

    async def record_pull_request(self, record: PullRequestRecord) -> None:
        """Insert the branch and pull request rows, or leave them as they are.

        Raises:
            InvalidRequest: the repository or the feature does not exist.
        """


class HostStore(Protocol):
    """The hosts that run jobs, as they last reported."""

    async def report_host(self, host: Host) -> None:
        """Insert or replace a host's report, keyed by (id, boot_id)."""

    async def live_hosts(self, seen_since: datetime) -> list[Host]:
        """Return hosts seen since then, ordered by id, newest report first."""

    async def remove_host(self, host_id: str, boot_id: str) -> None:
        """Delete the report of a host's process that has ended."""

    async def forget_hosts(self, seen_before: datetime) -> None:
        """Delete reports that are older."""


class SalvageStore(Protocol):
    """Undelivered work of ended jobs."""

    async def keep_work(self, work: KeptWork) -> None:
        """Store a job's undelivered work, in place of the job's previous one.

        Raises:
            NotFound: no such job.
        """

    async def kept_work(self, job_id: str) -> KeptWork | None:
        """Return a job's undelivered work."""

    async def forget_work(self, kept_before: datetime, spared: Collection[str]) -> None:
        """Delete work that is older, except that of the jobs in `spared`."""


class CredentialStore(Protocol):
    """Credentials whose usage limit is reached."""

    async def hold_credential(self, credential: str, until: datetime) -> None:
        """Let no job start on a credential before `until`, or before a later time set earlier.

        Args:
            credential: its fingerprint, never the credential.
            until: when the limit ends.
        """

    async def credential_held_until(self, credential: str) -> datetime | None:
        """Return the time last set by `hold_credential`, which may be past."""


class KeyStore(Protocol):
    """Idempotency keys of clients' requests."""

    async def claim_key(self, request: KeyedRequest) -> KeyedRequest:
        """Insert the request that a key stands for, or leave it. Return the stored request.

        Of concurrent claims of one (scope, key), one is inserted, and all return that one.
        """

    async def answer_key(self, scope: str, key: str, status: int, answer: str) -> KeyedRequest:
        """Set the answer of a claimed key unless it has one. Return the stored request.

        Raises:
            NotFound: the key was not claimed, or was released.
        """

    async def share_key(self, scope: str, key: str, resource_id: str) -> bool:
        """Let another request create this resource, too. The claim is then never released.

        Returns:
            Whether the key stands for that id and has no answer. If not, it was answered, released
            or claimed again.
        """

    async def release_key(self, scope: str, key: str, resource_id: str) -> None:
        """Delete a key that stands for this id, so that the request can be made again.

        A key with an answer stays. So does a shared key, whose other request may still create the
        resource.
        """

    async def forget_keys(self, claimed_before: datetime) -> None:
        """Delete the keys that were claimed before then."""


class Store(
    ClientStore,
    JobStore,
    JobListStore,
    QueueStore,
    MessageStore,
    SessionStore,
    PullRequestStore,
    HostStore,
    SalvageStore,
    CredentialStore,
    KeyStore,
    Protocol,
):
    """All stored data. One instance serves a process; its methods may run concurrently."""

    async def open(self) -> None:
        """Connect and check the schema. Idempotent."""

    async def close(self) -> None:
        """Close the connections. Idempotent."""

    def without_retries(self) -> Store:
        """Return a view of this store that sends each request once, for callers that retry.

        It shares the connections. Open and close only the original.
        """

    async def ping(self) -> None:
        """Check that the store answers.

        Raises:
            DependencyUnavailable: it does not answer.
        """
