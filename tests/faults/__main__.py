"""`make faults`: strike every phase with every fault, and print what became of the jobs."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.fault import Fault
from tests.faults.faults_of_all import WHOLE_INSTALLATION
from tests.faults.faults_of_jobs import OF_JOBS
from tests.faults.faults_of_machines import MACHINES
from tests.faults.faults_outside import ENVIRONMENT, OUTSIDE
from tests.faults.installation import installed
from tests.faults.phases import PHASES
from tests.faults.situations import Situation
from tests.faults.table import heading, line
from tests.faults.trial import Row, run_trial

AT_ONCE = 5
"""Faults of the outside; some requests are held for a few seconds only until all are there."""

Plan = Sequence[tuple[Fault, type[Situation]]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--fault", default="", help="only faults whose name has these words")
    parser.add_argument("--phase", default="", help="only phases whose name has these words")
    parser.add_argument("--keep", type=Path, help="keep the files of the run in this directory")
    options = parser.parse_args()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    broken = 0
    _say(heading())
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        for number, plan in enumerate(_plans(options.fault, options.phase)):
            for row in _run(plan, (options.keep or Path(name)) / str(number)):
                _say(line(row))
                broken += bool(row.seen.violations)
    return 1 if broken else 0


def _plans(fault_words: str, phase_words: str) -> Iterator[Plan]:
    """Yield what shares one installation: a fault in all phases, or some faults of the outside."""
    groups: list[Sequence[Fault]] = [
        [fault] for fault in (*WHOLE_INSTALLATION, *OF_JOBS, *MACHINES)
    ]
    groups += [OUTSIDE[first : first + AT_ONCE] for first in range(0, len(OUTSIDE), AT_ONCE)]
    for group in groups:
        plan = [
            (fault, phase)
            for fault in group
            for phase in fault.phases or PHASES
            if fault_words in fault.name and phase_words in phase.phase
        ]
        if plan:
            yield plan


def _run(plan: Plan, root: Path) -> list[Row]:
    slots = max(1, sum(phase.holds_slot for _, phase in plan))
    with plan[0][0].surroundings(root) as environment:
        variables = {**ENVIRONMENT, **environment} if plan[0][0] in OUTSIDE else environment
        with installed(root, MAX_CONCURRENT_JOBS=str(slots), **variables) as place:
            return run_trial(place, plan)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


sys.exit(main())
