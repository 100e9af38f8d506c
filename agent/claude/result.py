"""Determine the outcome of a Claude process from its state."""

from __future__ import annotations

from dataclasses import replace

from agent.claude.diagnosis import diagnose
from agent.claude.events import Result
from agent.claude.run_state import RunState
from agent.protocol import AgentResult
from domain.jobs import Usage

MAX_ANSWER_BYTES = 64 * 1024
"""Longest answer that is stored in the job's row; the messages have the complete text."""


def result_of(
    exit_code: int, state: RunState, used_before: Usage, used_after: Usage
) -> AgentResult:
    """Return the outcome of a process that has ended.

    A successful last result counts regardless of the exit code: some CLIs do not exit after their
    work and have to be stopped.

    Args:
        exit_code: of the process.
        state: the events of its output.
        used_before: usage of the session at the start of the process.
        used_after: usage from the session file now. A process that was stopped by SIGTERM has no
            result line, but writes its usage there (measured).
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


def _usage(results: list[Result], before: Usage, after: Usage) -> Usage:
    # The CLI reports totals of the session, which include the processes before this one.
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
