"""Every time limit and retry of the workflows, each with the reason for its number.

Temporal's words: schedule-to-start is waiting in the task queue, start-to-close is one attempt,
schedule-to-close is all attempts together.
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
    """How long an activity may take and how often it is tried; the default is one attempt."""

    start_to_close: timedelta
    schedule_to_start: timedelta | None = None
    schedule_to_close: timedelta | None = None
    heartbeat: timedelta | None = None
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(maximum_attempts=1))
    cancellation: ActivityCancellationType = ActivityCancellationType.TRY_CANCEL

    def within(self, limit: timedelta) -> Policy:
        """Return this policy for an activity that has `limit` for all its attempts together."""
        return replace(
            self, start_to_close=min(self.start_to_close, limit), schedule_to_close=limit
        )


HEARTBEAT_TIMEOUT = timedelta(seconds=10)
"""How long a machine may be silent before it counts as lost. Activities beat every second; a
restart of Temporal takes 2 s (measured), and recovery has to begin well within 15 s."""

HOST_PICKUP = timedelta(seconds=20)
"""A live host takes a task from its own queue within a second. One that has not in 20 s is gone;
its queue is named after its process and nobody else will ever poll it."""

WORKFLOW_TASK_TIMEOUT = timedelta(seconds=5)
"""Half of Temporal's default. Decisions here take milliseconds, and a task that was given to a
process which is cut off is given to another only after this."""

MAX_LOSSES = 5
"""A job that loses its machine five times in a row, each time soon, is likely the cause."""

SETTLED_AFTER = timedelta(minutes=10)
"""A machine that was held longer was not brought down by the job: what does so takes effect as the
job begins, or when Claude repeats what it did before."""

RETURN_PICKUP = timedelta(seconds=10)
"""How long a job asks for the machine that has its work before it takes any. A process that lives
takes a task within a second, and one that replaces another is there in some 4 s (measured); this
keeps recovery below 15 s all the same."""

REQUEUE_PAUSE = timedelta(seconds=1)
MAX_REQUEUE_PAUSE = timedelta(minutes=1)
"""Between a slot that could not be granted (the store was down) and asking for the next. Each try
adds some ten events to the history, and Temporal ends a workflow that has 51,200; at one a minute
that is three days."""

OVERLOAD_PAUSES = tuple(
    timedelta(seconds=seconds)
    for seconds in (15, 60, 120, 300, 600, 900, 900, 900, 900, 900, 900, 900)
)
"""Waits before running Claude again after a passing failure of its servers. The CLI has tried for
half a minute itself by then. Provider incidents are mostly over in minutes, the longer ones in two
hours, which these add up to."""

LIMIT_PAUSES = tuple(timedelta(seconds=seconds) for seconds in (1, 60, 300, 900))
"""The least wait for a usage limit, by how often in a row it was met; the last one for all others.
The reset time may lie in the past by this machine's clock, and others may use the credential up."""

UNKNOWN_RESET = usage_limits.UNKNOWN_RESET
"""The wait for a usage limit that did not say when it ends; machines hold the credential for it."""

STAGGER = timedelta(minutes=1)
STAGGER_SHARE = 0.1
"""Jobs that wait for one limit go on one after the other within a minute, or a tenth of their wait
where that is less: at once they would meet the limit of requests next."""

KILLED_PAUSES = (timedelta(seconds=1), timedelta(seconds=15), timedelta(minutes=1))
"""Waits before going on with a Claude that was killed. Mostly it is the kernel that kills, when
memory is short, and a moment later there is enough."""

TURN_GRACE = timedelta(minutes=5)
"""Beyond the limit that the machine keeps by itself: Claude is ended, its last lines are stored."""

MESSAGES_PER_RUN = 1500
"""Temporal refuses the 2,000th update of a run (measured); a conversation continues as a new run
well before, between two turns. It does so earlier when Temporal finds the history long."""

# A holder lives as long as the job needs the machine, so only its heartbeat ends it. It is never
# retried by Temporal: the workflow asks for the next lease itself.
HOLD_SLOT = Policy(
    start_to_close=timedelta(days=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    cancellation=ActivityCancellationType.TRY_CANCEL,
)

# As HOLD_SLOT, asked of the one machine that has the job's work.
RETURN_TO_SLOT = replace(HOLD_SLOT, schedule_to_start=RETURN_PICKUP)

# A first clone of a large repository takes minutes (422 MB: 30 s on loopback, measured). Passing
# network faults and a branch that another job is just giving up deserve more than one try.
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


def requeue_pauses() -> Iterator[timedelta]:
    """Yield, without end, the waits between slots that could not be granted."""
    pause = REQUEUE_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, MAX_REQUEUE_PAUSE)


def run_claude(limit: timedelta) -> Policy:
    """Return the policy of one turn, which the machine ends after `limit`.

    One attempt: whether and how to go on after a failure is the workflow's decision.
    """
    return Policy(
        schedule_to_start=HOST_PICKUP,
        start_to_close=limit + TURN_GRACE,
        heartbeat=HEARTBEAT_TIMEOUT,
        cancellation=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


# Delivery is a local write. When the turn is just over, or the process is still starting, the
# message waits for the next turn instead; so there is no point in trying long.
DELIVER = Policy(
    schedule_to_start=timedelta(seconds=5),
    start_to_close=timedelta(seconds=10),
)

# Stopping Claude is TERM, then KILL after 5 s; twice that and the fetch of a cancelled git.
STOP = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(seconds=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(maximum_attempts=2),
)

# Pushing and opening the pull request are repeated for more than half an hour: GitHub's incidents
# mostly pass within it, and the work is done already, so that waiting costs no more than a slot.
PUBLISH = Policy(
    schedule_to_start=HOST_PICKUP,
    cancellation=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    start_to_close=timedelta(minutes=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(
        initial_interval=timedelta(seconds=2),
        maximum_interval=timedelta(seconds=60),
        maximum_attempts=40,
    ),
)

# Taking back what a cancelled job published must happen, however long it takes.
WITHDRAW = Policy(
    start_to_close=timedelta(minutes=5),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=5)),
)

# Requests of 15 s at most: finding, creating, finding again, labels, and each reviewer by itself
# where GitHub refuses them together.
PULL_REQUEST = Policy(
    schedule_to_start=HOST_PICKUP,
    cancellation=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    start_to_close=timedelta(minutes=6),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(
        initial_interval=timedelta(seconds=2),
        maximum_interval=timedelta(seconds=60),
        maximum_attempts=40,
    ),
)

# Removing 200 MB takes up to 5 s (measured). What a lost host leaves is swept when it is back.
CLEAN_UP = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(minutes=5),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(maximum_attempts=3),
)

CLEAN_UP_TRIES = 2
"""A machine whose process has just died may still be listed with the queue of that process."""

# Rows are written for as long as it takes: what the store does not know, the API cannot tell.
RECORD = Policy(
    start_to_close=timedelta(seconds=30),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=15)
    ),
)

# POST /sync and the clones: the caller waits, so a host that does not answer is reported soon.
MIRROR = Policy(
    schedule_to_start=HOST_PICKUP,
    start_to_close=timedelta(hours=1),
    heartbeat=HEARTBEAT_TIMEOUT,
    retry=RetryPolicy(maximum_attempts=2),
)
