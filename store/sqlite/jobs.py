"""Single jobs, with their usage, branches and pull requests."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from typing_extensions import override

from domain.errors import Conflict, InvalidRequest
from domain.job_details import JobDetails, JobStateDetails, PullRequestRecord
from domain.jobs import Job, JobState, Usage
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
from store.sqlite.connections import SqliteAggregate, reading, writing
from store.sqlite.errors import is_duplicate
from store.sqlite.schema import HOLDS_BRANCH, IS_LIVE, STILL_CLEANS_UP
from store.sqlite.statements import (
    bounded,
    existing_job,
    exists,
    insert_new,
    json_value,
    named,
    placeholders,
    selected,
)

_REFERENCES = {
    "client_id": "clients",
    "repository_id": "code_repositories",
    "feature_id": "features",
    "created_by_team_member_id": "team_members",
    "retry_of": "agent_jobs",
    "code_branch_id": "code_branches",
    "code_pull_request_id": "code_pull_requests",
}

DETAILS_COLUMNS = (
    f"{selected(JOB_COLUMNS, 'j')}, {selected(REPOSITORY_COLUMNS, 'r')}, c.name, f.title"
)
_STATE_COLUMNS = selected(JOB_STATE_COLUMNS, "j")
DETAILS_TABLES = """
    LEFT JOIN clients c ON c.id = j.client_id
    LEFT JOIN code_repositories r ON r.id = j.repository_id
    LEFT JOIN features f ON f.id = j.feature_id
"""
_ADD_USAGE = """
    UPDATE agent_jobs SET
      num_turns = num_turns + :num_turns,
      total_cost_usd = CASE WHEN :total_cost_usd IS NULL THEN total_cost_usd
        ELSE coalesce(total_cost_usd, 0) + :total_cost_usd END,
      input_tokens = input_tokens + :input_tokens,
      output_tokens = output_tokens + :output_tokens,
      cache_read_tokens = cache_read_tokens + :cache_read_tokens,
      cache_creation_tokens = cache_creation_tokens + :cache_creation_tokens,
      claude_seconds = claude_seconds + :claude_seconds,
      updated_at = :created_at
    WHERE id = :job_id
"""


class SqliteJobs(SqliteAggregate, JobStore, PullRequestStore):
    """Single jobs, with their branches and pull requests."""

    @override
    @writing
    def create_job(self, connection: sqlite3.Connection, job: Job) -> None:
        row = job_to_row(job)
        try:
            insert_new(connection, "agent_jobs", row)
        except sqlite3.IntegrityError as error:
            if is_duplicate(error):
                raise _branch_is_held(connection, row) from error
            raise _missing_reference(connection, row) from error

    @override
    @reading
    def get_job(self, connection: sqlite3.Connection, job_id: str) -> JobDetails | None:
        statement = f"SELECT {DETAILS_COLUMNS} FROM agent_jobs j {DETAILS_TABLES} WHERE j.id = ?"
        values = connection.execute(statement, (canonical_id(job_id),)).fetchone()
        return None if values is None else details_from_values(values)

    @override
    @reading
    def get_job_state(self, connection: sqlite3.Connection, job_id: str) -> JobStateDetails | None:
        statement = f"""
            SELECT {_STATE_COLUMNS}, {selected(REPOSITORY_COLUMNS, "r")} FROM agent_jobs j
            LEFT JOIN code_repositories r ON r.id = j.repository_id WHERE j.id = ?
        """
        values = connection.execute(statement, (canonical_id(job_id),)).fetchone()
        if values is None:
            return None
        after_job = len(JOB_STATE_COLUMNS)
        return JobStateDetails(
            job=_state_from_values(values[:after_job]), repository=_repository(values[after_job:])
        )

    @override
    @writing
    def update_job(
        self, connection: sqlite3.Connection, job_id: str, changes: JobChanges, when: Guard
    ) -> bool:
        row = job_changes_to_row(changes) | {"updated_at": _now()}
        statement = (
            f"UPDATE agent_jobs SET {', '.join(f'{name} = ?' for name in row)} "
            f"WHERE id = ? AND status IN ({placeholders(len(when.statuses))}) "
            "AND lease = coalesce(?, lease) AND lease < coalesce(?, lease + 1)"
        )
        guard = (canonical_id(job_id), *sorted(when.statuses), when.lease, when.lease_below)
        try:
            return connection.execute(statement, (*row.values(), *guard)).rowcount == 1
        except sqlite3.IntegrityError as error:
            if is_duplicate(error):
                raise Conflict(
                    "Another live job works on the branch. Wait for it to end."
                ) from error
            raise _missing_reference(connection, row) from error

    @override
    @writing
    def add_usage(
        self,
        connection: sqlite3.Connection,
        job_id: str,
        report_id: str,
        usage: Usage,
        claude_seconds: float,
    ) -> None:
        canonical = existing_job(connection, job_id)
        report: dict[str, ColumnValue] = {
            "report_id": required_id(report_id, "report_id"),
            "job_id": canonical,
            "claude_seconds": claude_seconds,
            "created_at": _now(),
            **usage_to_row(usage),
        }
        stored = connection.execute(
            f"INSERT INTO agent_job_usage_reports ({', '.join(report)}) "
            f"VALUES ({placeholders(len(report))}) ON CONFLICT (report_id) DO NOTHING",
            tuple(report.values()),
        )
        if stored.rowcount == 1:
            connection.execute(_ADD_USAGE, report)

    @override
    @reading
    def jobs_to_reconcile(
        self, connection: sqlite3.Connection, older_than: datetime, after_id: str, limit: int
    ) -> list[JobState]:
        statement = f"""
            SELECT {_STATE_COLUMNS} FROM (
              SELECT id FROM agent_jobs INDEXED BY agent_jobs_live
                WHERE {IS_LIVE} AND id > :after_id AND updated_at < :older_than
              UNION ALL
              SELECT id FROM agent_jobs INDEXED BY agent_jobs_cleaning_up
                WHERE {STILL_CLEANS_UP} AND id > :after_id AND updated_at < :older_than
              ORDER BY id LIMIT :limit
            ) found CROSS JOIN agent_jobs j ON j.id = found.id ORDER BY j.id
        """
        bounds = {
            "older_than": time_text(older_than),
            "after_id": after_id,
            "limit": bounded(limit),
        }
        rows = connection.execute(statement, bounds)
        return [_state_from_values(values) for values in rows]

    @override
    @writing
    def record_pull_request(
        self, connection: sqlite3.Connection, record: PullRequestRecord
    ) -> None:
        now = time_text(utc_now())
        times: dict[str, ColumnValue] = {"created_at": now, "updated_at": now}
        branch, pull_request = pull_request_to_rows(record)
        try:
            insert_new(connection, "code_branches", branch | times)
            insert_new(connection, "code_pull_requests", pull_request | times)
        except sqlite3.IntegrityError as error:
            raise InvalidRequest(
                f"The repository {record.repository_id} or the feature of pull request "
                f"{record.number} does not exist."
            ) from error


def details_from_values(values: tuple[Any, ...]) -> JobDetails:
    """Return the job of a row that was selected with `DETAILS_COLUMNS`."""
    after_job = len(JOB_COLUMNS)
    *repository, client_name, feature_title = values[after_job:]
    return JobDetails(
        job=job_from_row(_job_row(JOB_COLUMNS, values[:after_job])),
        client_name=client_name,
        repository=_repository(repository),
        feature_title=feature_title,
    )


def _state_from_values(values: Sequence[Any]) -> JobState:
    return job_state_from_row(_job_row(JOB_STATE_COLUMNS, values))


def _job_row(columns: Sequence[str], values: Sequence[Any]) -> Row:
    row = named(columns, values)
    return {**row, "options": json_value(row["options"])}


def _repository(values: Sequence[Any]) -> Repository | None:
    row = named(REPOSITORY_COLUMNS, values)
    return repository_from_row(row) if row["id"] else None


def _branch_is_held(connection: sqlite3.Connection, row: dict[str, ColumnValue]) -> Conflict:
    (holder,) = connection.execute(
        f"SELECT id FROM agent_jobs WHERE {HOLDS_BRANCH} AND repository_id = ? AND branch_name = ?",
        (row["repository_id"], row["branch_name"]),
    ).fetchone()
    return Conflict(
        f"Job {holder} already works on the branch {row['branch_name']} of this repository. Wait "
        "for it to end, or use another branchName."
    )


def _missing_reference(
    connection: sqlite3.Connection, row: dict[str, ColumnValue]
) -> InvalidRequest:
    for column, table in _REFERENCES.items():
        value = row.get(column)
        if value is not None and not exists(connection, table, str(value)):
            return InvalidRequest(
                f"{column} {value} does not exist. Send the id of an existing row."
            )
    return InvalidRequest("The job has no value, or an invalid value, in a required column.")


def _now() -> str:
    return time_text(utc_now())
