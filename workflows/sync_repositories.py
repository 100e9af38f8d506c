"""Cloning or fetching repositories on every machine, for POST /sync and the clone endpoints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.interceptors.errors import failure_from
    from activities.job_records import RECORDS_TASK_QUEUE, RecordActivities
    from activities.workspaces import MirrorResult, WorkspaceActivities
    from domain.hosts import HOST_LIVE_FOR
    from workflows.activity_calls import perform
    from workflows.policies import MIRROR, RECORD

AT_ONCE = 4
"""Repositories fetched at the same time on one machine; git and its disk are busy with four."""


@dataclass(frozen=True, slots=True)
class MirrorsInput:
    """Ids of the repositories to fetch, and their names for the answer."""

    repositories: list[tuple[str, str]]


@workflow.defn(name="FetchMirrors")
class FetchMirrorsWorkflow:
    """Fetches repositories on every live machine and reports each once."""

    @workflow.run
    async def run(self, request: MirrorsInput) -> list[MirrorResult]:
        """Return a result for each repository, in the order asked for.

        A repository counts as fetched when every live machine has fetched it.
        """
        queues = await perform(
            RecordActivities.host_task_queues,
            HOST_LIVE_FOR.total_seconds(),
            RECORDS_TASK_QUEUE,
            RECORD,
        )
        if not queues:
            return [
                MirrorResult(name, False, None, "No worker is running. Start one and try again.")
                for _, name in request.repositories
            ]
        limit = asyncio.Semaphore(AT_ONCE)
        return list(
            await asyncio.gather(
                *(self._on_all(queues, entry, limit) for entry in request.repositories)
            )
        )

    async def _on_all(
        self, queues: list[str], entry: tuple[str, str], limit: asyncio.Semaphore
    ) -> MirrorResult:
        async with limit:
            results = await asyncio.gather(*(self._on_host(queue, entry) for queue in queues))
        return next((result for result in results if not result.success), results[0])

    async def _on_host(self, task_queue: str, entry: tuple[str, str]) -> MirrorResult:
        repository_id, name = entry
        try:
            return await perform(
                WorkspaceActivities.fetch_mirror,
                repository_id,
                task_queue,
                MIRROR,
            )
        except ActivityError as error:
            failure = failure_from(error)
            reason = failure.message if failure else "The worker did not answer in time."
            return MirrorResult(name, False, None, reason)


def fetch_timeout(repositories: int) -> timedelta:
    """Return how long the whole workflow may take: an hour for each group of four."""
    return timedelta(hours=1 + repositories // AT_ONCE)
