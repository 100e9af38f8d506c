"""The operations of the store, one protocol per aggregate.

Every method of every adapter keeps these promises:

- Writes are idempotent. The caller creates the ids. A repeated write changes nothing and returns
  the same answer.
- An outage raises `DependencyUnavailable(system="store")`, never an empty answer. Before that, the
  adapter retries a network request for a short time, unless the store is `without_retries`.
- A malformed id has the same answer as an unknown id. In a new row it raises `InvalidRequest`.
- Times are aware UTC datetimes with microseconds.
- Text is stored as `domain.messages.sanitize_text` returns it. A patch or a response is stored
  unchanged, with any length. `InvalidRequest` is raised if `is_storable` is false for it.
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
    """The columns that an update sets. Absent columns keep their value."""

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

    `lease` requires that lease; `lease_below` requires an older lease.
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
        """Return a client with its repositories, oldest first."""

    async def add_repository(self, repository: Repository) -> None:
        """Insert a repository.

        Raises:
            Conflict: the client already has a repository of that owner and name, in any case.
            InvalidRequest: the client does not exist.
        """

    async def get_repository(self, repository_id: str) -> Repository | None:
        """Return a repository of any provider."""

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
            Conflict: another live code job holds the branch. A unique index decides, so of two
                concurrent calls one fails.
            InvalidRequest: a row that the job refers to does not exist.
        """

    async def get_job(self, job_id: str) -> JobDetails | None:
        """Return a job with the names of its client, repository and feature."""

    async def get_job_state(self, job_id: str) -> JobStateDetails | None:
        """Return a job without its prompt, with its repository."""

    async def update_job(self, job_id: str, changes: JobChanges, when: Guard) -> bool:
        """Change a job if `when` is true, and set `updated_at`. Return whether it was changed.

        A repeated call returns False if the first call made the guard false. The caller reads the
        row to distinguish this from a lost race.

        Raises:
            Conflict: another live code job holds the branch.
            InvalidRequest: a row that the change refers to does not exist.
        """

    async def add_usage(
        self, job_id: str, report_id: str, usage: Usage, claude_seconds: float
    ) -> None:
        """Add a turn's usage to the job's sums, once per `report_id` (a UUID).

        Raises:
            NotFound: the job does not exist.
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
    """The live jobs, in the order of the queue."""

    async def queue_position(self, job_id: str) -> int:
        """Return the 1-based place among the jobs that wait for a slot, 0 for other jobs.

        The order is priority (1 first), `queued_at`, id.
        """

    async def first_in_queue(self, exclude: Collection[str]) -> str | None:
        """Return the id of the first job that waits for a slot and is not in `exclude`."""

    async def queue(self, limit: int) -> Queue:
        """Return the live jobs, at most `limit` of each kind."""


class MessageStore(Protocol):
    """The message logs of jobs, and the messages of users that wait for a job."""

    async def put_in_inbox(self, job_id: str, message: NewMessage) -> None:
        """Store a user's message until the job accepts it (`take_from_inbox`).

        Raises:
            NotFound: the job does not exist.
        """

    async def take_from_inbox(self, job_id: str, message_id: str) -> bool:
        """Move a message from the inbox to the end of the message log.

        Returns:
            Whether the message is in the log. False if the message is unknown.
        """

    async def append_messages(
        self, job_id: str, messages: Sequence[NewMessage], lease: int | None = None
    ) -> None:
        """Append messages to a job's log, in order, all or none.

        The store assigns `seq`. Messages with a stored id are skipped. With `lease`, nothing is
        stored unless it is the job's current lease.

        Raises:
            LeaseLost: the job has another lease.
            NotFound: the job does not exist.
        """

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message]:
        """Return the messages with `seq` > `after`, in order."""

    async def messages_by_id(self, job_id: str, ids: Sequence[str]) -> list[Message]:
        """Return the job's messages with these ids, ordered by `seq`."""


class SessionStore(Protocol):
    """The session files from which Claude's CLI resumes a conversation."""

    async def save_session(self, job_id: str, session_id: str, session_file: bytes) -> None:
        """Store the session file of a job, and replace the previous one.

        Raises:
            NotFound: the job does not exist.
        """

    async def load_session(self, job_id: str) -> tuple[str, bytes] | None:
        """Return the session id and the session file that were saved last."""


class PullRequestStore(Protocol):
    """The branches and pull requests of jobs."""

    async def record_pull_request(self, record: PullRequestRecord) -> None:
        """Insert the rows of the branch and the pull request. Existing rows stay unchanged.

        Raises:
            InvalidRequest: the repository or the feature does not exist.
        """


class HostStore(Protocol):
    """The last reports of the hosts that run jobs."""

    async def report_host(self, host: Host) -> None:
        """Insert or replace a host's report; the key is (id, boot_id)."""

    async def live_hosts(self, seen_since: datetime) -> list[Host]:
        """Return the hosts seen since then, by id, the newest report first."""

    async def remove_host(self, host_id: str, boot_id: str) -> None:
        """Delete the report of a worker process that has ended."""

    async def forget_hosts(self, older_than: datetime) -> None:
        """Delete the reports of hosts that were last seen before `older_than`."""


class SalvageStore(Protocol):
    """Undelivered work of ended jobs."""

    async def keep_work(self, work: KeptWork) -> None:
        """Store a job's undelivered work, and replace the previous record.

        Raises:
            NotFound: the job does not exist.
        """

    async def kept_work(self, job_id: str) -> KeptWork | None:
        """Return a job's undelivered work."""

    async def forget_work(self, older_than: datetime, exclude: Collection[str]) -> None:
        """Delete work that was kept before `older_than`, except of the jobs in `exclude`."""


class CredentialStore(Protocol):
    """Credentials whose usage limit is reached."""

    async def hold_credential(self, credential: str, until: datetime) -> None:
        """Hold a credential until `until`, or until the later time that is already stored.

        Args:
            credential: the fingerprint of the credential, never the credential.
            until: the end of the usage limit.
        """

    async def credential_held_until(self, credential: str) -> datetime | None:
        """Return the time set by `hold_credential`, which may be in the past."""


class KeyStore(Protocol):
    """Idempotency keys of clients' requests."""

    async def claim_key(self, request: KeyedRequest) -> KeyedRequest:
        """Insert the request of a key, unless the key is claimed. Return the stored request.

        Of concurrent claims of one (scope, key), one is inserted, and all calls return it.
        """

    async def answer_key(self, scope: str, key: str, status: int, answer: str) -> KeyedRequest:
        """Set the answer of a claimed key unless it has one. Return the stored request.

        Raises:
            NotFound: the key is not claimed, or was released.
        """

    async def share_key(self, scope: str, key: str, resource_id: str) -> bool:
        """Let a second request create the resource too. The claim is then never released.

        Returns:
            Whether the key has this resource id and no answer. If not, it was answered, released or
            claimed again.
        """

    async def release_key(self, scope: str, key: str, resource_id: str) -> None:
        """Delete a key with this resource id, so that the request can be sent again.

        A key with an answer stays. A shared key stays too, because its other request may still
        create the resource.
        """

    async def forget_keys(self, older_than: datetime) -> None:
        """Delete the keys that were claimed before `older_than`."""


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
    """All stored data. A process has one instance; its methods may run concurrently."""

    async def open(self) -> None:
        """Connect and check the schema. Idempotent.

        Raises:
            DependencyUnavailable: the database does not answer.
            DependencyFailed: the database has another schema, or refused the credential.
        """

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
