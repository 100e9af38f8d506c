"""The store in a Supabase project, through the `supabase` package."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime

from typing_extensions import override

from domain.hosts import Host
from domain.job_details import JobDetails, JobFilter, JobPage, KeptWork, PullRequestRecord, Queue
from domain.jobs import Job, Usage
from domain.keyed_requests import KeyedRequest
from domain.messages import Message, NewMessage
from domain.repositories import Client, ClientDetails, Repository
from store import (
    supabase_clients,
    supabase_credential_holds,
    supabase_hosts,
    supabase_idempotency_keys,
    supabase_job_lists,
    supabase_jobs,
    supabase_kept_work,
    supabase_messages,
    supabase_pull_requests,
    supabase_queue,
    supabase_sessions,
)
from store.protocol import Guard, JobChanges, Store
from store.supabase_connection import Patience, SupabaseConnection


class SupabaseStore(Store):
    """Keeps everything in a Supabase project that has the migrations of `supabase/migrations`.

    Cancelling a call may leave it done or not, as a lost connection would; repeating it is safe.

    Args:
        url: the project's address.
        key: its secret (service role) key.
        patience: how long a call goes on before `DependencyUnavailable`.
    """

    def __init__(self, url: str, key: str, *, patience: Patience | None = None) -> None:
        self._connection = SupabaseConnection(url, key, patience or Patience())
        self._opening = asyncio.Lock()
        self._is_open = False

    @override
    async def open(self) -> None:
        async with self._opening:
            if self._is_open:
                return
            try:
                await self._connection.open()
                await self._connection.check()
            except BaseException:
                await asyncio.shield(self._connection.close())
                raise
            self._is_open = True

    @override
    async def close(self) -> None:
        self._is_open = False
        await asyncio.shield(self._connection.close())

    @override
    async def ping(self) -> None:
        await self._connection.rows(self._connection.table("agent_hosts").select("id").limit(1))

    @override
    async def create_client(self, client: Client) -> None:
        await supabase_clients.create_client(self._connection, client)

    @override
    async def list_clients(self) -> list[ClientDetails]:
        return await supabase_clients.list_clients(self._connection)

    @override
    async def get_client(self, client_id: str) -> ClientDetails | None:
        return await supabase_clients.get_client(self._connection, client_id)

    @override
    async def add_repository(self, repository: Repository) -> None:
        await supabase_clients.add_repository(self._connection, repository)

    @override
    async def get_repository(self, repository_id: str) -> Repository | None:
        return await supabase_clients.get_repository(self._connection, repository_id)

    @override
    async def find_repository(self, owner_name: str, repo_name: str) -> Repository | None:
        return await supabase_clients.find_repository(self._connection, owner_name, repo_name)

    @override
    async def list_repositories(self) -> list[Repository]:
        return await supabase_clients.list_repositories(self._connection)

    @override
    async def feature_exists(self, feature_id: str) -> bool:
        return await supabase_clients.feature_exists(self._connection, feature_id)

    @override
    async def team_member_exists(self, team_member_id: str) -> bool:
        return await supabase_clients.team_member_exists(self._connection, team_member_id)

    @override
    async def create_job(self, job: Job) -> None:
        await supabase_jobs.create_job(self._connection, job)

    @override
    async def get_job(self, job_id: str) -> JobDetails | None:
        return await supabase_jobs.get_job(self._connection, job_id)

    @override
    async def list_jobs(self, where: JobFilter, limit: int, offset: int) -> JobPage:
        return await supabase_job_lists.list_jobs(self._connection, where, limit, offset)

    @override
    async def update_job(self, job_id: str, changes: JobChanges, when: Guard) -> bool:
        return await supabase_jobs.update_job(self._connection, job_id, changes, when)

    @override
    async def add_usage(
        self, job_id: str, report_id: str, usage: Usage, claude_seconds: float
    ) -> None:
        await supabase_jobs.add_usage(self._connection, job_id, report_id, usage, claude_seconds)

    @override
    async def queue_position(self, job_id: str) -> int:
        return await supabase_queue.queue_position(self._connection, job_id)

    @override
    async def first_in_queue(self, beyond: Collection[str]) -> str | None:
        return await supabase_queue.first_in_queue(self._connection, beyond)

    @override
    async def queue(self, limit: int) -> Queue:
        return await supabase_queue.queue(self._connection, limit)

    @override
    async def jobs_to_reconcile(self, older_than: datetime, after_id: str, limit: int) -> list[Job]:
        return await supabase_jobs.jobs_to_reconcile(self._connection, older_than, after_id, limit)

    @override
    async def put_in_inbox(self, job_id: str, message: NewMessage) -> None:
        await supabase_messages.put_in_inbox(self._connection, job_id, message)

    @override
    async def take_from_inbox(self, job_id: str, message_id: str) -> bool:
        return await supabase_messages.take_from_inbox(self._connection, job_id, message_id)

    @override
    async def append_messages(
        self, job_id: str, messages: Sequence[NewMessage], lease: int | None = None
    ) -> None:
        await supabase_messages.append_messages(self._connection, job_id, messages, lease)

    @override
    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message]:
        return await supabase_messages.read_messages(self._connection, job_id, after, limit)

    @override
    async def messages_by_id(self, job_id: str, ids: Sequence[str]) -> list[Message]:
        return await supabase_messages.messages_by_id(self._connection, job_id, ids)

    @override
    async def save_session(self, job_id: str, session_id: str, transcript: bytes) -> None:
        await supabase_sessions.save_session(self._connection, job_id, session_id, transcript)

    @override
    async def load_session(self, job_id: str) -> tuple[str, bytes] | None:
        return await supabase_sessions.load_session(self._connection, job_id)

    @override
    async def record_pull_request(self, record: PullRequestRecord) -> None:
        await supabase_pull_requests.record_pull_request(self._connection, record)

    @override
    async def report_host(self, host: Host) -> None:
        await supabase_hosts.report_host(self._connection, host)

    @override
    async def live_hosts(self, seen_since: datetime) -> list[Host]:
        return await supabase_hosts.live_hosts(self._connection, seen_since)

    @override
    async def remove_host(self, host_id: str, boot_id: str) -> None:
        await supabase_hosts.remove_host(self._connection, host_id, boot_id)

    @override
    async def forget_hosts(self, seen_before: datetime) -> None:
        await supabase_hosts.forget_hosts(self._connection, seen_before)

    @override
    async def keep_work(self, work: KeptWork) -> None:
        await supabase_kept_work.keep_work(self._connection, work)

    @override
    async def kept_work(self, job_id: str) -> KeptWork | None:
        return await supabase_kept_work.kept_work(self._connection, job_id)

    @override
    async def forget_work(self, kept_before: datetime, spared: Collection[str]) -> None:
        await supabase_kept_work.forget_work(self._connection, kept_before, spared)

    @override
    async def hold_credential(self, credential: str, until: datetime) -> None:
        await supabase_credential_holds.hold_credential(self._connection, credential, until)

    @override
    async def credential_held_until(self, credential: str) -> datetime | None:
        return await supabase_credential_holds.credential_held_until(self._connection, credential)

    @override
    async def claim_key(self, request: KeyedRequest) -> KeyedRequest:
        return await supabase_idempotency_keys.claim_key(self._connection, request)

    @override
    async def answer_key(self, scope: str, key: str, status: int, answer: str) -> KeyedRequest:
        return await supabase_idempotency_keys.answer_key(
            self._connection, scope, key, status, answer
        )

    @override
    async def share_key(self, scope: str, key: str, resource_id: str) -> bool:
        return await supabase_idempotency_keys.share_key(self._connection, scope, key, resource_id)

    @override
    async def release_key(self, scope: str, key: str, resource_id: str) -> None:
        await supabase_idempotency_keys.release_key(self._connection, scope, key, resource_id)

    @override
    async def forget_keys(self, claimed_before: datetime) -> None:
        await supabase_idempotency_keys.forget_keys(self._connection, claimed_before)
