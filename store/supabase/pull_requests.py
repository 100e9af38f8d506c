"""The branches and pull requests that jobs made."""

from __future__ import annotations

from collections.abc import Mapping

from postgrest import ReturnMethod
from typing_extensions import override

from domain.errors import InvalidRequest
from domain.job_details import PullRequestRecord
from domain.timestamps import utc_now
from store.codec.rows import pull_request_to_rows
from store.codec.values import ColumnValue, time_text
from store.protocol import PullRequestStore
from store.supabase.connection import SupabaseAggregate, SupabaseConnection
from store.supabase.errors import MISSING_REFERENCE, Refusal, translated


class SupabasePullRequests(SupabaseAggregate, PullRequestStore):
    """The branches and pull requests of jobs."""

    @override
    async def record_pull_request(self, record: PullRequestRecord) -> None:
        now = time_text(utc_now())
        times: dict[str, ColumnValue] = {"created_at": now, "updated_at": now}
        branch, pull_request = pull_request_to_rows(record)
        try:
            # The branch has the same references, so it is refused first. A repeat completes what an
            # interruption left undone.
            await _insert_new(self._connection, "code_branches", branch | times)
            await _insert_new(self._connection, "code_pull_requests", pull_request | times)
        except Refusal as refused:
            if refused.code == MISSING_REFERENCE:
                raise InvalidRequest(
                    f"The repository {record.repository_id} or the feature of pull request "
                    f"{record.number} does not exist."
                ) from refused
            raise translated(refused) from refused


async def _insert_new(
    connection: SupabaseConnection, table: str, row: Mapping[str, ColumnValue]
) -> None:
    query = connection.table(table).upsert(
        row, on_conflict="id", ignore_duplicates=True, returning=ReturnMethod.minimal
    )
    await connection.attempt(query)
