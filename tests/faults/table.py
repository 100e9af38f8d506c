"""The table that `make faults` prints."""

from __future__ import annotations

from tests.faults.fault_run import Row

_COLUMNS = (
    ("fault", 26),
    ("phase", 24),
    ("seconds", 7),
    ("runs", 4),
    ("commits", 7),
    ("PRs", 3),
    ("lost", 4),
    ("doubled", 7),
    ("verdict", 0),
)


def heading() -> str:
    return _line([name for name, _ in _COLUMNS])


def line(row: Row) -> str:
    outcome = row.outcome
    seconds = "never" if row.seconds is None else f"{row.seconds:.1f}"
    end = outcome.status if outcome.failure is None else f"{outcome.status}, {outcome.failure}"
    verdict = f"held ({end})"
    if row.is_late:
        verdict = f"LATE: {row.limit:.0f} s are allowed ({end})"
    if outcome.violations:
        verdict = f"BROKEN: {'; '.join(outcome.violations)}"
    figures = (outcome.runs, outcome.commits, outcome.pull_requests, outcome.lost, outcome.doubled)
    return _line([row.fault, row.phase, seconds, *map(str, figures), verdict])


def _line(cells: list[str]) -> str:
    pairs = zip(cells, _COLUMNS, strict=True)
    return "  ".join(cell.ljust(width) for cell, (_, width) in pairs).rstrip()
