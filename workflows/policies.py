"""Every time limit and retry of the workflows, each with the reason for its value.

In Temporal's terms, schedule-to-start is the wait in the task queue, start-to-close is one attempt
and schedule-to-close is all attempts together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from domain import usage_limits


@dataclass(frozen=True, slots=True)
class Policy:
    """The time limits and retries of an activity. The default is one attempt."""

    start_to_close: timedelta
    schedule_to_start: timedelta | None = None
    schedule_to_close: timedelta | None = None
    heartbeat: timedelta | None = None
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(maximum_attempts=1))
    cancellation: ActivityCancellationType = ActivityCancellationType.TRY_CANCEL

    def within(self, limit: timedelta) -> Policy:
        """Return this policy with `limit` as the time for all attempts together."""
        return replace(
            self, start_to_close=min(self.start_to_close, limit), schedule_to_close=limit
        )


HEARTBEAT_TIMEOUT = timedelta(seconds=10)
"""A host without heartbeats for this long counts as lost. Activities send one every second, a
restart of Temporal takes 2 s (measured), and recovery must begin well within 15 s."""

HOST_PICKUP = timedelta(seconds=20)
"""A live host takes a task from its own queue within a second. The queue is named after the host's
process, so no other process will poll it if that process is dead."""

WORKFLOW_TASK_TIMEOUT = timedelta(seconds=5)
"""Half of Temporal's default. A workflow task takes milliseconds. If its worker loses its
connection, another worker gets the task only after this time."""

MAX_HOST_LOSSES = 5
"""A job that loses its host five times in a row, each time soon, is probably the cause."""

HOST_LOSS_RESET = timedelta(minutes=10)
"""A host loss after this time does not count as the job's fault. A job that brings a host down does
so soon after it starts, or when Claude repeats its last step."""

RETURN_PICKUP = timedelta(seconds=10)
"""How long a job waits for the host that has its work before it accepts any host. A live process
takes a task within a second, and a restarted one is ready after some 4 s (measured). Recovery still
takes less than 15 s."""

REQUEUE_BACKOFF = timedelta(seconds=1)
MAX_REQUEUE_BACKOFF = timedelta(minutes=1)
"""Between attempts to get a slot while none can be granted, for example while the store is down.
Each attempt adds some ten events to the history, and Temporal ends a workflow at 51,200 events. At
one attempt a minute that is three days."""

OVERLOAD_BACKOFF = tuple(
    timedelta(seconds=seconds)
    for seconds in (15, 60, 120, 300, 600, 900, 900, 900, 900, 900, 900, 900)
)
"""Waits before Claude runs again after a temporary failure of its servers. The CLI has retried for
half a minute before that. Most provider incidents last minutes, the longer ones two hours, which is
the sum of these waits."""

MIN_LIMIT_WAITS = tuple(timedelta(seconds=seconds) for seconds in (1, 60, 300, 900))
"""The minimum wait for a usage limit, by how often in a row the job has met one. The last value
applies to all later ones. By this host's clock the reset time may be in the past, and other users
of the credential may use up the new quota at once."""

UNKNOWN_RESET = usage_limits.UNKNOWN_RESET
"""The wait for a usage limit without a reset time. Hosts hold the credential for the same time."""

MAX_JITTER = timedelta(minutes=1)
MAX_JITTER_SHARE = 0.1
"""Jobs that wait for the same limit resume spread over a minute, or over a tenth of their wait if
that is less. All at once, they would exceed the limit of requests next."""

KILLED_BACKOFF = (timedelta(seconds=1), timedelta(seconds=15), timedelta(minutes=1))
"""Waits before Claude resumes after it was killed. Usually the kernel kills it because memory is
short, and there is enough a moment later."""

TURN_GRACE = timedelta(minutes=5)
"""Added to the time limit that the host enforces itself. In this time the host stops Claude and
stores the last lines."""

MESSAGES_PER_RUN = 1500
"""After this many messages a conversation continues as a new run, between two turns. Temporal
refuses the 2,000th update of a run (measured). A run ends earlier if Temporal suggests it because
the history is long."""

SYNC_CONCURRENCY = 4
"""Repositories fetched at the same time on one host. Four keep git and the disk busy."""

SYNC_GROUP_TIMEOUT = timedelta(hours=1)
"""The time limit for each group of `SYNC_CONCURRENCY` repositories: one attempt of FETCH_MIRROR."""

# `hold_slot` lives as long as the job needs the host, so only its heartbeat ends it early. Temporal
# never retries it: the workflow asks for the next lease itself.
HOLD_SLOT = Policy(
    start_to_close=timedelta(days=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    cancellation=ActivityCancellationType.TRY_CANCEL,
)

# HOLD_SLOT for the one host that has the job's work.
RETURN_TO_SLOT = replace(HOLD_SLOT, schedule_to_start=RETURN_PICKUP)

# The first clone of a large repository takes minutes (422 MB: 30 s on loopback, measured). Retries
# help after network errors, and while another job is releasing the branch.
PREPARE = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(hours=1),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(
        initial_interval=timedelta(seconds=1),
        maximum_interval=timedelta(seconds=15),
        maximum_attempts=6,
    ),
    cancellation=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
)


def requeue_backoff() -> Iterator[timedelta]:
    """Yield the waits between attempts to get a slot, without end."""
    wait = REQUEUE_BACKOFF
    while True:
        yield wait
        wait = min(2 * wait, MAX_REQUEUE_BACKOFF)


def run_claude(limit: timedelta) -> Policy:
    """Return the policy of one turn, which the host ends after `limit`.

    One attempt: the workflow decides whether to continue after a failure.
    """
    return Policy(
        schedule_to_start=HOST_PICKUP,
        start_to_close=limit + TURN_GRACE,
        heartbeat=HEARTBEAT_TIMEOUT,
        cancellation=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


# Delivery is a local write. If the turn has just ended or the process is still starting, the
# message waits for the next turn, so retries would gain nothing.
DELIVER_MESSAGE = Policy(
    schedule_to_start=timedelta(seconds=5),
    start_to_close=timedelta(seconds=10),
)

# Stopping Claude is SIGTERM, then SIGKILL after 5 s. The rest is for a git command that is
# cancelled at the same time.
STOP = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(seconds=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(maximum_attempts=2),
)

# `git status` of a large worktree takes seconds. The second attempt covers a store that is down.
VERIFY_UNCHANGED = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(seconds=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(maximum_attempts=2),
)

# Pushing and opening the pull request are retried for more than half an hour. Most GitHub incidents
# are shorter, and since the work is done, waiting costs only a slot.
PUBLISH = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(minutes=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(
        initial_interval=timedelta(seconds=2),
        maximum_interval=timedelta(seconds=60),
        maximum_attempts=40,
    ),
    cancellation=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
)

# Six minutes are enough for all requests of one attempt, each with a limit of 15 s: find, create,
# find again, set labels, and ask each reviewer separately if GitHub refuses them together.
OPEN_PULL_REQUEST = replace(PUBLISH, start_to_close=timedelta(minutes=6))

# Retried without end: the publication of a cancelled job must be undone.
WITHDRAW = Policy(
    start_to_close=timedelta(minutes=5),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=5)),
)

# Removing 200 MB takes up to 5 s (measured). If the host is lost, its sweeper cleans up later.
CLEAN_UP = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(minutes=5),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(maximum_attempts=3),
)

CLEAN_UP_LOOKUPS = 2
"""How often the host's task queue is looked up. A host whose process has just died may still be
listed with that process's queue."""

# Retried without end: the API shows only what is in the store.
RECORD = Policy(
    start_to_close=timedelta(seconds=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=15)
    ),
)

# The caller of POST /sync waits, so a host that does not answer is reported soon.
FETCH_MIRROR = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(hours=1),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(maximum_attempts=2),
)


def sync_timeout(repositories: int) -> timedelta:
    """Return how long fetching so many repositories may take in all."""
    return SYNC_GROUP_TIMEOUT * (1 + repositories // SYNC_CONCURRENCY)
