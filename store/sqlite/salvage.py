"""Undelivered work of ended jobs."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import datetime

from typing_extensions import override

from domain.job_details import KeptWork
from store.codec.rows import KEPT_WORK_COLUMNS, kept_work_from_row, kept_work_to_row
from store.codec.values import canonical_id, time_text
from store.protocol import SalvageStore
from store.sqlite.connections import SqliteAggregate, reading, writing
from store.sqlite.statements import existing_job, named, placeholders

_COLUMNS = ", ".join(KEPT_WORK_COLUMNS)


class SqliteSalvage(SqliteAggregate, SalvageStore):
    """Undelivered work of ended jobs."""

    @override
    @writing
    def keep_work(self, connection: sqlite3.Connection, work: KeptWork) -> None:
        row = kept_work_to_row(work) | {"job_id": existing_job(connection, work.job_id)}
        connection.execute(
            f"INSERT OR REPLACE INTO agent_job_kept_work ({_COLUMNS}) "
            f"VALUES ({placeholders(len(KEPT_WORK_COLUMNS))})",
            tuple(row[name] for name in KEPT_WORK_COLUMNS),
        )

    @override
    @reading
    def kept_work(self, connection: sqlite3.Connection, job_id: str) -> KeptWork | None:
        values = connection.execute(
            f"SELECT {_COLUMNS} FROM agent_job_kept_work WHERE job_id = ?", (canonical_id(job_id),)
        ).fetchone()
        return None if values is None else kept_work_from_row(named(KEPT_WORK_COLUMNS, values))

    @override
    @writing
    def forget_work(
        self, connection: sqlite3.Connection, older_than: datetime, exclude: Collection[str]
    ) -> None:
        old = connection.execute(
            "SELECT job_id FROM agent_job_kept_work WHERE created_at < ?", (time_text(older_than),)
        )
        expired = [values for values in old.fetchall() if values[0] not in exclude]
        connection.executemany("DELETE FROM agent_job_kept_work WHERE job_id = ?", expired)
