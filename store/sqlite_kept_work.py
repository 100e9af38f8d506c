"""Work of ended jobs that was not delivered."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import datetime

from domain.job_details import KeptWork
from store.row_values import canonical_id, time_text
from store.rows import KEPT_WORK_COLUMNS, kept_work_from_row, kept_work_to_row
from store.sqlite_rows import existing_job, marks, named

_COLUMNS = ", ".join(KEPT_WORK_COLUMNS)


def keep_work(connection: sqlite3.Connection, work: KeptWork) -> None:
    """Keep work in place of what was kept for its job before.

    Raises:
        InvalidRequest: the patch cannot be kept as it is.
        NotFound: no such job.
    """
    row = kept_work_to_row(work) | {"job_id": existing_job(connection, work.job_id)}
    connection.execute(
        f"INSERT OR REPLACE INTO agent_job_kept_work ({_COLUMNS}) "
        f"VALUES ({marks(len(KEPT_WORK_COLUMNS))})",
        tuple(row[name] for name in KEPT_WORK_COLUMNS),
    )


def kept_work(connection: sqlite3.Connection, job_id: str) -> KeptWork | None:
    """Return a job's undelivered work."""
    values = connection.execute(
        f"SELECT {_COLUMNS} FROM agent_job_kept_work WHERE job_id = ?", (canonical_id(job_id),)
    ).fetchone()
    return None if values is None else kept_work_from_row(named(KEPT_WORK_COLUMNS, values))


def forget_work(
    connection: sqlite3.Connection, kept_before: datetime, spared: Collection[str]
) -> None:
    """Forget the work that was kept before then, but not that of the jobs in `spared`."""
    old = connection.execute(
        "SELECT job_id FROM agent_job_kept_work WHERE created_at < ?", (time_text(kept_before),)
    )
    expired = [values for values in old.fetchall() if values[0] not in spared]
    connection.executemany("DELETE FROM agent_job_kept_work WHERE job_id = ?", expired)
