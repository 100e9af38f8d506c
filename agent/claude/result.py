"""What a Claude process achieved: its usage and answer, and why it failed when it did."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.claude.diagnosis import diagnose
from agent.claude.events import TurnEnded
from agent.claude.run_state import RunState
from domain.errors import JobFailure
from domain.jobs import Usage

MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class AgentResult:
    """The outcome of one process.

    `answer` is the last turn's text, at most 64 KiB. `failure` is None when the last turn
    succeeded. `limit_type` names the usage limit that was met, where the API told it.
    """

    usage: Usage
    answer: str | None
    session_id: str | None
    model: str | None
    failure: JobFailure | None
    limit_type: str | None = None


def result_of(
    exit_code: int, state: RunState, used_before: Usage, used_after: Usage
) -> AgentResult:
    """Judge a process that has ended.

    A successful last result counts whatever the exit code is: a CLI that has to be stopped after
    it has done its work.

    Args:
        exit_code: of the process.
        state: what it said.
        used_before: what the session had used when the process started.
        used_after: what it has used by the transcript now; a process that was ended by SIGTERM
            has no result, but writes it there (measured).
    """
    last = state.last
    failure = diagnose(exit_code, state)
    return AgentResult(
        usage=_usage(state.results, used_before, used_after),
        answer=_cut(last.text) if last and last.text is not None and failure is None else None,
        session_id=_session_id(state),
        model=_model(state),
        failure=failure,
        limit_type=state.error.limit_type if state.error is not None else None,
    )


def _usage(results: list[TurnEnded], before: Usage, after: Usage) -> Usage:
    """Return what this process used: the CLI counts on from where the session was before."""
    total = after
    for result in results:
        total = _larger(total, result.session_usage)
    return replace(total - before, turns=sum(result.turns for result in results))


def _larger(one: Usage, other: Usage) -> Usage:
    costs = [cost for cost in (one.cost_usd, other.cost_usd) if cost is not None]
    return Usage(
        cost_usd=max(costs, default=None),
        input_tokens=max(one.input_tokens, other.input_tokens),
        output_tokens=max(one.output_tokens, other.output_tokens),
        cache_read_tokens=max(one.cache_read_tokens, other.cache_read_tokens),
        cache_creation_tokens=max(one.cache_creation_tokens, other.cache_creation_tokens),
    )


def _cut(text: str) -> str:
    data = text.encode("utf-8", "replace")
    return (
        text if len(data) <= MAX_ANSWER_BYTES else data[:MAX_ANSWER_BYTES].decode(errors="ignore")
    )


def _session_id(state: RunState) -> str | None:
    last = state.results[-1] if state.results else None
    return (last.session_id if last else None) or (
        state.started.session_id if state.started else None
    )


def _model(state: RunState) -> str | None:
    return state.started.model if state.started else None
