"""The embedded store: one SQLite file, which several processes may use at once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from typing_extensions import override

from domain.errors import DependencyUnavailable
from domain.hosts import Host
from domain.job_details import JobDetails, JobFilter, JobPage, KeptWork, PullRequestRecord, Queue
from domain.jobs import Job, Usage
from domain.keyed_requests import KeyedRequest
from domain.messages import Message, NewMessage
from domain.repositories import Client, ClientDetails, Repository
from store import (
    sqlite_clients,
    sqlite_credential_holds,
    sqlite_hosts,
    sqlite_idempotency_keys,
    sqlite_inbox,
    sqlite_job_lists,
    sqlite_jobs,
    sqlite_kept_work,
    sqlite_messages,
    sqlite_pull_requests,
    sqlite_queue,
    sqlite_sessions,
)
from store.protocol import Guard, JobChanges, Store
from store.sqlite_connections import SqliteConnections

BUSY_SECONDS = 10.0
"""How long a write waits for other processes; theirs take milliseconds."""


class SqliteStore(Store):
    """Keeps everything in one file, created with its directory for this user alone.

    Cancelling a call never leaves it half done: it happens whole or not at all.

    Args:
        path: the database file, on a local disk.
        busy_seconds: how long a write waits for other processes before `DependencyUnavailable`.
    """

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._opening = asyncio.Lock()
        self._connections: SqliteConnections | None = None

    @property
    def _file(self) -> SqliteConnections:
        if self._connections is None:
            raise DependencyUnavailable("The store is not open. Open it first.", "store")
        return self._connections

    @override
    async def open(self) -> None:
        async with self._opening:
            if self._connections is not None:
                return
            connections = SqliteConnections(self._path, self._busy_seconds)
            try:
                await connections.prepare()
            except BaseException:
                await asyncio.shield(connections.close())
                raise
            self._connections = connections

    @override
    async def close(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            await asyncio.shield(connections.close())

    @override
    async def ping(self) -> None:
        await self._file.check()

    @override
    async def create_client(self, client: Client) -> None:
        await self._file.write(sqlite_clients.create_client, client)

    @override
    async def list_clients(self) -> list[ClientDetails]:
        return await self._file.read(sqlite_clients.list_clients)

    @override
    async def get_client(self, client_id: str) -> ClientDetails | None:
        return await self._file.read(sqlite_clients.get_client, client_id)

    @override
    async def add_repository(self, repository: Repository) -> None:
        await self._file.write(sqlite_clients.add_repository, repository)

    @override
    async def get_repository(self, repository_id: str) -> Repository | None:
        return await self._file.read(sqlite_clients.get_repository, repository_id)

    @override
    async def find_repository(self, owner_name: str, repo_name: str) -> Repository | None:
        return await self._file.read(sqlite_clients.find_repository, owner_name, repo_name)

    @override
    async def list_repositories(self) -> list[Repository]:
        return await self._file.read(sqlite_clients.list_repositories)

    @override
    async def feature_exists(self, feature_id: str) -> bool:
        return await self._file.read(sqlite_clients.feature_exists, feature_id)

    @override
    async def team_member_exists(self, team_member_id: str) -> bool:
        return await self._file.read(sqlite_clients.team_member_exists, team_member_id)

    @override
    async def create_job(self, job: Job) -> None:
        await self._file.write(sqlite_jobs.create_job, job)

    @override
    async def get_job(self, job_id: str) -> JobDetails | None:
        return await self._file.read(sqlite_jobs.get_job, job_id)

    @override
    async def list_jobs(self, where: JobFilter, limit: int, offset: int) -> JobPage:
        return await self._file.read(sqlite_job_lists.list_jobs, where, limit, offset)

    @override
    async def update_job(self, job_id: str, changes: JobChanges, when: Guard) -> bool:
        return await self._file.write(sqlite_jobs.update_job, job_id, changes, when)

    @override
    async def add_usage(
        self, job_id: str, report_id: str, usage: Usage, claude_seconds: float
    ) -> None:
        await self._file.write(sqlite_jobs.add_usage, job_id, report_id, usage, claude_seconds)

    @override
    async def queue_position(self, job_id: str) -> int:
        return await self._file.read(sqlite_queue.queue_position, job_id)

    @override
    async def first_in_queue(self, beyond: Collection[str]) -> str | None:
        return await self._file.read(sqlite_queue.first_in_queue, beyond)

    @override
    async def queue(self, limit: int) -> Queue:
        return await self._file.read(sqlite_queue.queue, limit)

    @override
    async def jobs_to_reconcile(self, older_than: datetime, after_id: str, limit: int) -> list[Job]:
        return await self._file.read(sqlite_jobs.jobs_to_reconcile, older_than, after_id, limit)

    @override
    async def put_in_inbox(self, job_id: str, message: NewMessage) -> None:
        await self._file.write(sqlite_inbox.put_in_inbox, job_id, message)

    @override
    async def take_from_inbox(self, job_id: str, message_id: str) -> bool:
        return await self._file.write(sqlite_inbox.take_from_inbox, job_id, message_id)

    @override
    async def append_messages(
        self, job_id: str, messages: Sequence[NewMessage], lease: int | None = None
    ) -> None:
        await self._file.write(sqlite_messages.append_messages, job_id, messages, lease)

    @override
    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message]:
        return await self._file.read(sqlite_messages.read_messages, job_id, after, limit)

    @override
    async def messages_by_id(self, job_id: str, ids: Sequence[str]) -> list[Message]:
        return await self._file.read(sqlite_messages.messages_by_id, job_id, ids)

    @override
    async def save_session(self, job_id: str, session_id: str, transcript: bytes) -> None:
        compressed = await asyncio.to_thread(sqlite_sessions.compress, transcript)
        await self._file.write(sqlite_sessions.save_session, job_id, session_id, compressed)

    @override
    async def load_session(self, job_id: str) -> tuple[str, bytes] | None:
        return await self._file.read(sqlite_sessions.load_session, job_id)

    @override
    async def record_pull_request(self, record: PullRequestRecord) -> None:
        await self._file.write(sqlite_pull_requests.record_pull_request, record)

    @override
    async def report_host(self, host: Host) -> None:
        await self._file.write(sqlite_hosts.report_host, host)

    @override
    async def live_hosts(self, seen_since: datetime) -> list[Host]:
        return await self._file.read(sqlite_hosts.live_hosts, seen_since)

    @override
    async def remove_host(self, host_id: str, boot_id: str) -> None:
        await self._file.write(sqlite_hosts.remove_host, host_id, boot_id)

    @override
    async def forget_hosts(self, seen_before: datetime) -> None:
        await self._file.write(sqlite_hosts.forget_hosts, seen_before)

    @override
    async def keep_work(self, work: KeptWork) -> None:
        await self._file.write(sqlite_kept_work.keep_work, work)

    @override
    async def kept_work(self, job_id: str) -> KeptWork | None:
        return await self._file.read(sqlite_kept_work.kept_work, job_id)

    @override
    async def forget_work(self, kept_before: datetime, spared: Collection[str]) -> None:
        await self._file.write(sqlite_kept_work.forget_work, kept_before, spared)

    @override
    async def hold_credential(self, credential: str, until: datetime) -> None:
        await self._file.write(sqlite_credential_holds.hold_credential, credential, until)

    @override
    async def credential_held_until(self, credential: str) -> datetime | None:
        return await self._file.read(sqlite_credential_holds.credential_held_until, credential)

    @override
    async def claim_key(self, request: KeyedRequest) -> KeyedRequest:
        return await self._file.write(sqlite_idempotency_keys.claim_key, request)

    @override
    async def answer_key(self, scope: str, key: str, status: int, answer: str) -> KeyedRequest:
        return await self._file.write(
            sqlite_idempotency_keys.answer_key, scope, key, status, answer
        )

    @override
    async def share_key(self, scope: str, key: str, resource_id: str) -> bool:
        return await self._file.write(sqlite_idempotency_keys.share_key, scope, key, resource_id)

    @override
    async def release_key(self, scope: str, key: str, resource_id: str) -> None:
        await self._file.write(sqlite_idempotency_keys.release_key, scope, key, resource_id)

    @override
    async def forget_keys(self, claimed_before: datetime) -> None:
        await self._file.write(sqlite_idempotency_keys.forget_keys, claimed_before)
