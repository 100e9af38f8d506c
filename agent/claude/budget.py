"""How much of a job's budget the next Claude process may spend.

The CLI counts from the start of its process, whatever the resumed session has spent before. It
looks after each call: the call that reaches the limit is the last one, and it fails the turn even
when it brought the final answer. So a process with any limit can spend one call, and a budget is
overrun by one call at most (measured with CLI 2.1.330).
"""

from __future__ import annotations

from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import Usage

_DECIMALS = 6
"""Of a US dollar; what is left below is the rounding of sums."""


def process_budget(budget_usd: float | None, recorded: Usage, session: Usage) -> float | None:
    """Return the `max_budget_usd` of a job's next process; None when the job has no budget.

    Neither source knows everything: a process whose end nobody recorded left its cost in the
    transcript, and a session that was lost took its transcript with it. The larger one counts.
    What a process spent in a turn that SIGKILL cut short stands in neither (measured).

    Args:
        budget_usd: for all processes of the job together.
        recorded: what the job has used by its row.
        session: what the session that goes on has used by its transcript; empty for a new one.

    Raises:
        JobFailure: BUDGET_REACHED, when nothing is left.
    """
    if budget_usd is None:
        return None
    left = round(budget_usd - max(recorded.cost_usd or 0.0, session.cost_usd or 0.0), _DECIMALS)
    if left <= 0:
        raise JobFailure(FailureCode.BUDGET_REACHED)
    return left
