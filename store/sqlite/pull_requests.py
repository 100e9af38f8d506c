"""The branches and pull requests that jobs made."""

from __future__ import annotations

import sqlite3

from typing_extensions import override

from domain.errors import InvalidRequest
from domain.job_details import PullRequestRecord
from domain.timestamps import utc_now
from store.codec.rows import pull_request_to_rows
from store.codec.values import ColumnValue, time_text
from store.protocol import PullRequestStore
from store.sqlite.operations import SqliteAggregate, writing
from store.sqlite.statements import insert_new


class SqlitePullRequests(SqliteAggregate, PullRequestStore):
    """The branches and pull requests of jobs."""

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
