"""Converts the rows of each table to the types of `domain` and back, for all adapters.

A row is a mapping from column name to value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from domain.failures import FailureCode, TimeLimit
from domain.hosts import Host
from domain.job_details import KeptWork, PullRequestRecord, QueueEntry
from domain.jobs import (
    Job,
    JobOptions,
    JobState,
    JobStatus,
    JobType,
    Outcome,
    Phase,
    RetryFrom,
    Usage,
)
from domain.keyed_requests import KeyedRequest
from domain.messages import Message, MessageType
from domain.repositories import Client, Repository
from store.codec.job_options import options_from_json, options_to_json
from store.codec.values import (
    ColumnValue,
    column_value,
    parse_member,
    parse_optional_time,
    parse_time,
    require_storable,
    required_id,
)

Row = Mapping[str, Any]

USAGE_COLUMNS = {
    "turns": "num_turns",
    "cost_usd": "total_cost_usd",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_creation_tokens": "cache_creation_tokens",
}
"""Field of `Usage` to column in `agent_jobs` and `agent_job_usage_reports`."""

_STATE_FIELDS = tuple(field.name for field in fields(JobState) if field.name != "usage")
_JOB_FIELDS = (*_STATE_FIELDS, "prompt")
JOB_STATE_COLUMNS = (*_STATE_FIELDS, *USAGE_COLUMNS.values())
JOB_COLUMNS = (*JOB_STATE_COLUMNS, "prompt")
CLIENT_COLUMNS = tuple(field.name for field in fields(Client))
REPOSITORY_COLUMNS = tuple(field.name for field in fields(Repository))
MESSAGE_COLUMNS = tuple(field.name for field in fields(Message))
QUEUE_COLUMNS = tuple(field.name for field in fields(QueueEntry))
HOST_COLUMNS = tuple(field.name for field in fields(Host))
KEPT_WORK_COLUMNS = tuple(field.name for field in fields(KeptWork))
KEYED_REQUEST_COLUMNS = tuple(field.name for field in fields(KeyedRequest))

JOB_ID_COLUMNS = (
    "id",
    "client_id",
    "repository_id",
    "feature_id",
    "created_by_team_member_id",
    "retry_of",
    "code_branch_id",
    "code_pull_request_id",
)
"""The columns with UUIDs. `session_id` is not one; it is text for Claude's CLI."""

_JOB_COLUMNS_AS_STORED = (
    "id",
    "client_id",
    "branch_name",
    "title",
    "feature_id",
    "created_by_team_member_id",
    "retry_of",
    "host",
    "worktree_path",
    "pid",
    "priority",
    "lease",
    "attempt",
    "session_id",
    "model",
    "base_sha",
    "head_sha",
    "exit_code",
    "error",
    "result",
    "pr_url",
    "pr_number",
    "files_changed",
    "claude_seconds",
    "code_branch_id",
    "code_pull_request_id",
)


def job_to_row(job: Job) -> dict[str, ColumnValue]:
    """Return all columns of a job.

    Raises:
        InvalidRequest: an id is not a UUID.
    """
    return job_changes_to_row({name: getattr(job, name) for name in (*_JOB_FIELDS, "usage")})


def job_changes_to_row(changes: Mapping[str, Any]) -> dict[str, ColumnValue]:
    """Return the columns of an update; `usage` becomes six columns.

    Raises:
        InvalidRequest: an id is not a UUID.
        KeyError: a name is not a column.
    """
    row: dict[str, ColumnValue] = {}
    for name, value in changes.items():
        if name == "usage":
            row.update(usage_to_row(value))
        elif name not in _JOB_FIELDS:
            raise KeyError(name)
        else:
            row[name] = _job_value(name, value)
    return row


def _job_value(name: str, value: Any) -> ColumnValue:
    if name in JOB_ID_COLUMNS and value is not None:
        return required_id(value, name)
    if isinstance(value, JobOptions):
        return options_to_json(value)
    return column_value(value)


def usage_to_row(usage: Usage) -> dict[str, ColumnValue]:
    """Return the columns of a usage."""
    return {column: getattr(usage, field) for field, column in USAGE_COLUMNS.items()}


def job_from_row(row: Row) -> Job:
    """Return the job of a row that has all of `JOB_COLUMNS`."""
    return Job(prompt=row["prompt"], **_job_state_values(row))


def job_state_from_row(row: Row) -> JobState:
    """Return the job of a row that has all of `JOB_STATE_COLUMNS`."""
    return JobState(**_job_state_values(row))


def _job_state_values(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in _JOB_COLUMNS_AS_STORED} | dict(
        repository_id=row["repository_id"] or "",
        job_type=_job_type(row["job_type"]),
        status=JobStatus(row["status"]),
        phase=parse_member(Phase, row["phase"]),
        outcome=parse_member(Outcome, row["outcome"]),
        failure_code=_failure_code(row["failure_code"]),
        clock=parse_member(TimeLimit, row["clock"]),
        retry_from=parse_member(RetryFrom, row["retry_from"]),
        options=options_from_json(row["options"]),
        created_at=parse_time(row["created_at"]),
        queued_at=parse_time(row["queued_at"]),
        updated_at=parse_time(row["updated_at"]),
        started_at=parse_optional_time(row["started_at"]),
        completed_at=parse_optional_time(row["completed_at"]),
        resumes_at=parse_optional_time(row["resumes_at"]),
        usage=_usage_from_row(row),
        cost_is_estimate=bool(row["cost_is_estimate"]),
    )


def _job_type(text: str) -> JobType:
    # The earlier product ran jobs of its other types as code jobs.
    return JobType.TASK if text == JobType.TASK else JobType.CODE


def _failure_code(text: str | None) -> FailureCode | None:
    # A code from a newer version is still a failure.
    return None if text is None else parse_member(FailureCode, text) or FailureCode.INTERNAL


def _usage_from_row(row: Row) -> Usage:
    return Usage(**{field: row[column] for field, column in USAGE_COLUMNS.items()})


def queue_entry_from_row(row: Row) -> QueueEntry:
    """Return the queue entry of a row that has all of `QUEUE_COLUMNS`."""
    return QueueEntry(
        id=row["id"],
        title=row["title"],
        client_id=row["client_id"],
        branch_name=row["branch_name"],
        job_type=_job_type(row["job_type"]),
        phase=Phase(row["phase"]),
        created_at=parse_time(row["created_at"]),
        queued_at=parse_time(row["queued_at"]),
        started_at=parse_optional_time(row["started_at"]),
    )


def message_from_row(row: Row) -> Message:
    """Return the message of a row that has all of `MESSAGE_COLUMNS`."""
    return Message(
        id=row["id"],
        job_id=row["job_id"],
        type=parse_member(MessageType, row["type"]) or MessageType.SYSTEM,
        content=row["content"],
        created_at=parse_time(row["created_at"]),
        seq=row["seq"],
    )


def client_to_row(client: Client) -> dict[str, ColumnValue]:
    """Return the columns of a client.

    Raises:
        InvalidRequest: its id is not a UUID.
    """
    row = {name: column_value(getattr(client, name)) for name in CLIENT_COLUMNS}
    return row | {"id": required_id(client.id, "id"), "updated_at": row["created_at"]}


def client_from_row(row: Row) -> Client:
    """Return the client of a row that has all of `CLIENT_COLUMNS`."""
    return Client(id=row["id"], name=row["name"], created_at=parse_time(row["created_at"]))


def repository_to_row(repository: Repository) -> dict[str, ColumnValue]:
    """Return the columns of a repository.

    Raises:
        InvalidRequest: an id is not a UUID.
    """
    row = {name: column_value(getattr(repository, name)) for name in REPOSITORY_COLUMNS}
    row["id"] = required_id(repository.id, "id")
    if repository.client_id is not None:
        row["client_id"] = required_id(repository.client_id, "client_id")
    return row


def repository_from_row(row: Row) -> Repository:
    """Return the repository of a row that has all of `REPOSITORY_COLUMNS`."""
    return Repository(
        id=row["id"],
        client_id=row["client_id"],
        owner_name=row["owner_name"],
        repo_name=row["repo_name"],
        default_branch=row["default_branch"],
        url=row["url"],
        created_at=parse_time(row["created_at"]),
        updated_at=parse_time(row["updated_at"]),
        provider=row["provider"],
    )


def pull_request_to_rows(
    record: PullRequestRecord,
) -> tuple[dict[str, ColumnValue], dict[str, ColumnValue]]:
    """Return the columns of `code_branches` and `code_pull_requests`, without their times.

    Raises:
        InvalidRequest: an id is not a UUID.
    """
    shared: dict[str, ColumnValue] = {
        "repository_id": required_id(record.repository_id, "repository_id"),
        "feature_id": record.feature_id and required_id(record.feature_id, "feature_id"),
    }
    branch_id = required_id(record.branch_id, "branch_id")
    branch = shared | {
        "id": branch_id,
        "name": column_value(record.branch_name),
        "url": column_value(record.branch_url),
    }
    pull_request = shared | {
        "id": required_id(record.pull_request_id, "pull_request_id"),
        "branch_id": branch_id,
        "number": record.number,
        "title": column_value(record.title),
        "status": "open",
        "url": column_value(record.url),
    }
    return branch, pull_request


def host_to_row(host: Host) -> dict[str, ColumnValue]:
    """Return the columns of a host's report."""
    return {name: column_value(getattr(host, name)) for name in HOST_COLUMNS}


def host_from_row(row: Row) -> Host:
    """Return the host of a row that has all of `HOST_COLUMNS`."""
    return Host(
        id=row["id"],
        boot_id=row["boot_id"],
        task_queue=row["task_queue"],
        slots=row["slots"],
        last_seen=parse_time(row["last_seen"]),
        claude_version=row["claude_version"],
        claude_authenticated=bool(row["claude_authenticated"]),
        claude_login_type=row["claude_login_type"],
        git_authenticated=bool(row["git_authenticated"]),
        git_user=row["git_user"],
        sandbox=row["sandbox"],
        sandbox_ok=bool(row["sandbox_ok"]),
        sandbox_network=row["sandbox_network"],
        credential_hidden=bool(row["credential_hidden"]),
    )


def kept_work_to_row(work: KeptWork) -> dict[str, ColumnValue]:
    """Return the columns of kept work, with the job id unchanged.

    Raises:
        InvalidRequest: the patch cannot be stored unchanged.
    """
    row = {name: column_value(getattr(work, name)) for name in KEPT_WORK_COLUMNS}
    return row | {"patch": None if work.patch is None else require_storable(work.patch, "patch")}


def kept_work_from_row(row: Row) -> KeptWork:
    """Return the kept work of a row that has all of `KEPT_WORK_COLUMNS`."""
    values = {name: row[name] for name in KEPT_WORK_COLUMNS}
    return KeptWork(**values | {"created_at": parse_time(row["created_at"])})


def claim_to_row(request: KeyedRequest) -> dict[str, ColumnValue]:
    """Return the columns of a key without an answer.

    Raises:
        InvalidRequest: the resource's id is not a UUID.
    """
    return {
        "scope": column_value(request.scope),
        "key": column_value(request.key),
        "fingerprint": column_value(request.fingerprint),
        "resource_id": required_id(request.resource_id, "resource_id"),
        "created_at": column_value(request.created_at),
    }


def keyed_request_from_row(row: Row) -> KeyedRequest:
    """Return the request of a row that has all of `KEYED_REQUEST_COLUMNS`."""
    values = {name: row[name] for name in KEYED_REQUEST_COLUMNS}
    return KeyedRequest(**values | {"created_at": parse_time(row["created_at"])})
