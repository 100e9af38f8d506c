"""Single jobs, with their usage, branches and pull requests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from postgrest import AsyncSelectRequestBuilder, ReturnMethod
from typing_extensions import override

from domain.errors import Conflict, InvalidRequest, NotFound, OrchestratorError
from domain.job_details import JobDetails, JobStateDetails, PullRequestRecord
from domain.jobs import LIVE, Job, JobState, JobType, Usage
from domain.messages import sanitize_text
from domain.repositories import Repository
from domain.timestamps import utc_now
from store.codec.rows import (
    JOB_COLUMNS,
    JOB_STATE_COLUMNS,
    REPOSITORY_COLUMNS,
    Row,
    job_changes_to_row,
    job_from_row,
    job_state_from_row,
    job_to_row,
    pull_request_to_rows,
    repository_from_row,
    usage_to_row,
)
from store.codec.values import ColumnValue, canonical_id, required_id, time_text
from store.protocol import Guard, JobChanges, JobStore, PullRequestStore
from store.supabase.connection import SupabaseAggregate, SupabaseConnection, rows_of
from store.supabase.errors import DUPLICATE, MISSING_REFERENCE, Refusal, translated

TABLE = "agent_jobs"

_REPOSITORY = f"repository:code_repositories!repository_id({','.join(REPOSITORY_COLUMNS)})"
DETAILS_COLUMNS = (
    *JOB_COLUMNS,
    "client:clients!client_id(name)",
    _REPOSITORY,
    "feature:features!feature_id(title)",
)
_IS_LIVE = f"status.in.({','.join(sorted(LIVE))})"


class SupabaseJobs(SupabaseAggregate, JobStore, PullRequestStore):
    """Single jobs, with their branches and pull requests."""

    @override
    async def create_job(self, job: Job) -> None:
        row = job_to_row(job)
        query = self._connection.table(TABLE).upsert(
            row, on_conflict="id", ignore_duplicates=True, returning=ReturnMethod.minimal
        )
        try:
            await self._connection.send(query)
        except Refusal as refused:
            if refused.code == DUPLICATE:
                raise await _branch_is_held(self._connection, row) from refused
            raise _refused_change(refused, row) from refused

    @override
    async def get_job(self, job_id: str) -> JobDetails | None:
        canonical = canonical_id(job_id)
        if canonical is None:
            return None
        query = self._connection.table(TABLE).select(*DETAILS_COLUMNS).eq("id", canonical)
        rows = await self._connection.rows(query)
        return details_from_row(rows[0]) if rows else None

    @override
    async def get_job_state(self, job_id: str) -> JobStateDetails | None:
        canonical = canonical_id(job_id)
        if canonical is None:
            return None
        query = self._connection.table(TABLE).select(*JOB_STATE_COLUMNS, _REPOSITORY)
        rows = await self._connection.rows(query.eq("id", canonical))
        if not rows:
            return None
        return JobStateDetails(
            job=job_state_from_row(rows[0]), repository=_repository(rows[0]["repository"])
        )

    @override
    async def update_job(self, job_id: str, changes: JobChanges, when: Guard) -> bool:
        row = job_changes_to_row(changes) | {"updated_at": time_text(utc_now())}
        canonical = canonical_id(job_id)
        if canonical is None or not when.statuses:
            return False
        try:
            answer = await self._connection.send(_guarded(self._connection, canonical, row, when))
        except Refusal as refused:
            if refused.code == DUPLICATE:
                raise Conflict(
                    "Another live job works on the branch. Wait for it to end."
                ) from refused
            raise _refused_change(refused, row) from refused
        if rows_of(answer):
            return True
        return answer.repeated and await _was_changed(self._connection, canonical, row)

    @override
    async def add_usage(
        self, job_id: str, report_id: str, usage: Usage, claude_seconds: float
    ) -> None:
        report: dict[str, Any] = {
            "job": existing_id(job_id),
            "report": required_id(report_id, "report_id"),
            "claude_seconds": claude_seconds,
            "reported_at": time_text(utc_now()),
            **usage_to_row(usage),
        }
        try:
            await self._connection.send(self._connection.function("orchestrator_add_usage", report))
        except Refusal as refused:
            if refused.code == MISSING_REFERENCE:
                raise no_such_job(job_id) from refused
            raise translated(refused) from refused

    @override
    async def jobs_to_reconcile(
        self, older_than: datetime, after_id: str, limit: int
    ) -> list[JobState]:
        stale = f"updated_at.lt.{time_text(older_than)}"
        # One condition, because a second `or` parameter would replace the first.
        stuck = f"and({_IS_LIVE},{stale}),and(phase.not.is.null,{stale})"

        def page(read: list[Row]) -> AsyncSelectRequestBuilder:
            after = read[-1]["id"] if read else canonical_id(after_id)
            query = self._connection.table(TABLE).select(*JOB_STATE_COLUMNS).or_(stuck)
            return (query.gt("id", after) if after else query).order("id")

        rows = await self._connection.pages(page, limit)
        return [job_state_from_row(row) for row in rows]

    @override
    async def record_pull_request(self, record: PullRequestRecord) -> None:
        now = time_text(utc_now())
        times: dict[str, ColumnValue] = {"created_at": now, "updated_at": now}
        branch, pull_request = pull_request_to_rows(record)
        try:
            # The branch has the same references, so it is refused first. After an interruption, a
            # repeated call inserts the missing row.
            await _insert_new(self._connection, "code_branches", branch | times)
            await _insert_new(self._connection, "code_pull_requests", pull_request | times)
        except Refusal as refused:
            if refused.code == MISSING_REFERENCE:
                raise InvalidRequest(
                    f"The repository {record.repository_id} or the feature of pull request "
                    f"{record.number} does not exist."
                ) from refused
            raise translated(refused) from refused


def details_from_row(row: Row) -> JobDetails:
    """Return the job of a row that was selected with `DETAILS_COLUMNS`."""
    client, feature = row["client"], row["feature"]
    return JobDetails(
        job=job_from_row(row),
        client_name=client["name"] if client else "",
        repository=_repository(row["repository"]),
        feature_title=feature["title"] if feature else None,
    )


def _repository(row: Row | None) -> Repository | None:
    return None if row is None else repository_from_row(row)


def _guarded(
    connection: SupabaseConnection, canonical: str, row: dict[str, ColumnValue], when: Guard
) -> AsyncSelectRequestBuilder:
    query = connection.table(TABLE).update(row).eq("id", canonical)
    query = query.in_("status", sorted(when.statuses))
    if when.lease is not None:
        query = query.eq("lease", when.lease)
    if when.lease_below is not None:
        query = query.lt("lease", when.lease_below)
    return query.select("id")


async def _was_changed(
    connection: SupabaseConnection, canonical: str, row: dict[str, ColumnValue]
) -> bool:
    """Return whether an earlier try changed the row: `updated_at` is the time of this update."""
    query = connection.table(TABLE).select("id").eq("id", canonical)
    return bool(await connection.rows(query.eq("updated_at", row["updated_at"])))


def existing_id(job_id: str) -> str:
    """Return the stored form of a job's id.

    Raises:
        NotFound: `job_id` is not a UUID, so the job does not exist.
    """
    canonical = canonical_id(job_id)
    if canonical is None:
        raise no_such_job(job_id)
    return canonical


def no_such_job(job_id: str) -> NotFound:
    """Return the error for a job that does not exist."""
    return NotFound(f"The job {sanitize_text(job_id)[:80]!r} does not exist.")


async def _branch_is_held(
    connection: SupabaseConnection, row: dict[str, ColumnValue]
) -> OrchestratorError:
    query = connection.table(TABLE).select("id").in_("status", sorted(LIVE))
    for column in ("repository_id", "branch_name"):
        query = query.eq(column, row[column])
    holders = await connection.rows(query.eq("job_type", JobType.CODE.value))
    holder = f"Job {holders[0]['id']}" if holders else "Another job"
    return Conflict(
        f"{holder} already works on the branch {row['branch_name']} of this repository. Wait for "
        "it to end, or use another branchName."
    )


def _refused_change(refused: Refusal, row: dict[str, ColumnValue]) -> OrchestratorError:
    if refused.code == MISSING_REFERENCE and row.get(refused.column) is not None:
        return InvalidRequest(
            f"{refused.column} {row[refused.column]} does not exist. Send the id of an existing "
            "row."
        )
    return translated(refused)


async def _insert_new(
    connection: SupabaseConnection, table: str, row: Mapping[str, ColumnValue]
) -> None:
    query = connection.table(table).upsert(
        row, on_conflict="id", ignore_duplicates=True, returning=ReturnMethod.minimal
    )
    await connection.send(query)
