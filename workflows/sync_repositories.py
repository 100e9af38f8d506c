"""Cloning or fetching repositories on every host, for POST /sync and the clone endpoints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.interceptors.errors import failure_from
    from activities.job_records import RECORDS_TASK_QUEUE, ListHostQueuesInput, RecordActivities
    from activities.workspaces import FetchMirrorInput, FetchMirrorResult, WorkspaceActivities
    from domain.hosts import HOST_LIVE_FOR
    from workflows.activity_calls import perform
    from workflows.policies import FETCH_MIRROR, RECORD, SYNC_CONCURRENCY


@dataclass(frozen=True, slots=True)
class SyncRepositoriesInput:
    """The id and the name of each repository."""

    repositories: list[tuple[str, str]]


@workflow.defn(name="SyncRepositories")
class SyncRepositoriesWorkflow:
    """Fetches repositories on every live host and reports one result for each repository."""

    @workflow.run
    async def run(self, request: SyncRepositoriesInput) -> list[FetchMirrorResult]:
        """Return the results in the order of the request.

        A repository succeeds only if every live host has fetched it.
        """
        hosts = await perform(
            RecordActivities.list_host_queues,
            ListHostQueuesInput(HOST_LIVE_FOR.total_seconds()),
            RECORDS_TASK_QUEUE,
            RECORD,
        )
        if not hosts.task_queues:
            return [
                FetchMirrorResult(
                    name, False, None, "No worker is running. Start one and try again."
                )
                for _, name in request.repositories
            ]
        limit = asyncio.Semaphore(SYNC_CONCURRENCY)
        return list(
            await asyncio.gather(
                *(
                    self._fetch_on_all_hosts(hosts.task_queues, entry, limit)
                    for entry in request.repositories
                )
            )
        )

    async def _fetch_on_all_hosts(
        self, task_queues: list[str], entry: tuple[str, str], limit: asyncio.Semaphore
    ) -> FetchMirrorResult:
        async with limit:
            results = await asyncio.gather(
                *(self._fetch_on_host(task_queue, entry) for task_queue in task_queues)
            )
        return next((result for result in results if not result.success), results[0])

    async def _fetch_on_host(self, task_queue: str, entry: tuple[str, str]) -> FetchMirrorResult:
        repository_id, name = entry
        try:
            return await perform(
                WorkspaceActivities.fetch_mirror,
                FetchMirrorInput(repository_id),
                task_queue,
                FETCH_MIRROR,
                name,
            )
        except ActivityError as error:
            failure = failure_from(error)
            reason = failure.message if failure else "The worker did not answer in time."
            return FetchMirrorResult(name, False, None, reason)
