"""Settings of all jobs: how many run, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from domain.jobs import DEFAULT_PRIORITY, MAX_PRIORITY, MAX_TIMEOUT_MINUTES, MIN_PRIORITY
from settings.fields import Group, minutes, setting, whole_number

_YEAR_MINUTES = 525_600


class JobSettings(Group):
    """Slots, priority and time limits."""

    title = "Jobs"

    max_concurrent: Annotated[int, whole_number(1, 1000)] = setting(
        "MAX_CONCURRENT_JOBS", "2", "Number of jobs that run at once on this host"
    )
    priority: Annotated[int, whole_number(MIN_PRIORITY, MAX_PRIORITY)] = setting(
        "JOB_PRIORITY", str(DEFAULT_PRIORITY), "Priority of jobs that set none: 1 (first) to 5"
    )
    timeout: Annotated[timedelta, minutes(MAX_TIMEOUT_MINUTES)] = setting(
        "JOB_TIMEOUT_MINUTES",
        "720",
        "Time that a job may hold a host, over all its turns and attempts",
    )
    turn_timeout: Annotated[timedelta, minutes(MAX_TIMEOUT_MINUTES)] = setting(
        "TURN_TIMEOUT_MINUTES", "240", "Time limit of one turn of Claude; a code job is one turn"
    )
    silence_timeout: Annotated[timedelta, minutes(MAX_TIMEOUT_MINUTES)] = setting(
        "SILENCE_TIMEOUT_MINUTES",
        "60",
        "Time after which Claude is stopped if it prints nothing and uses no processor",
    )
    queue_timeout: Annotated[timedelta | None, minutes(_YEAR_MINUTES)] = setting(
        "QUEUE_TIMEOUT_MINUTES", None, "Time that a job may wait for a slot", shown="unlimited"
    )
    task_idle_timeout: Annotated[timedelta, minutes(_YEAR_MINUTES)] = setting(
        "TASK_IDLE_TIMEOUT_MINUTES",
        "10080",
        "Time that a conversation waits for its user",
        shown="`10080` (a week)",
    )
    keep_work: Annotated[
        timedelta, whole_number(1, 3650, lambda number: timedelta(days=number))
    ] = setting("KEEP_WORK_DAYS", "30", "Minimum time that undelivered work of ended jobs is kept")
    drain_timeout: Annotated[
        timedelta, whole_number(0, 86_400, lambda number: timedelta(seconds=number))
    ] = setting(
        "DRAIN_TIMEOUT_SECONDS",
        "20",
        "Time that a stopping worker lets its jobs run on before another worker resumes them",
    )
