"""Calculate the budget of the next Claude process of a job.

The CLI counts the cost of its own process only, also when it resumes a session. It checks the limit
after each model call. The call that reaches the limit is the last one, and the turn then fails even
if that call gave the final answer. A budget is therefore exceeded by at most one call (measured
with CLI 2.1.330).
"""

from __future__ import annotations

from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import Usage

_DECIMALS = 6
"""Of a US dollar; a smaller rest is a rounding error of the sums."""


def process_budget(budget_usd: float | None, recorded: Usage, session: Usage) -> float | None:
    """Return the `max_budget_usd` of a job's next process; None if the job has no budget.

    Both sources can be incomplete, so the larger one counts. The row lacks a process whose end was
    never recorded. A lost session takes its session file with it. A turn that was ended by SIGKILL
    is in neither (measured).

    Args:
        budget_usd: for all processes of the job together.
        recorded: usage in the job's row.
        session: usage in the file of the session to resume; empty for a new session.

    Raises:
        JobFailure: BUDGET_REACHED, if nothing is left.
    """
    if budget_usd is None:
        return None
    left = round(budget_usd - max(recorded.cost_usd or 0.0, session.cost_usd or 0.0), _DECIMALS)
    if left <= 0:
        raise JobFailure(FailureCode.BUDGET_REACHED)
    return left
