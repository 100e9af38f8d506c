"""A sample job."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from domain.jobs import Job

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
JOB_ID = "9b2f7a0c-5a07-4f5e-9d0e-3f6f5a0b1c2d"


def a_job(**values: Any) -> Job:
    defaults: dict[str, Any] = {
        "id": JOB_ID,
        "client_id": "c",
        "repository_id": "r",
        "prompt": "Add a login page",
        "branch_name": "feature/x",
        "created_at": MOMENT,
        "queued_at": MOMENT,
        "updated_at": MOMENT,
    }
    return Job(**defaults | values)
