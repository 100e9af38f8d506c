"""`make faults`: strike every phase with every fault, and print what became of the jobs."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.faults.faults_of_all import WHOLE_INSTALLATION
from tests.faults.faults_of_jobs import OF_JOBS
from tests.faults.installation import installed
from tests.faults.phases import PHASES
from tests.faults.situations import Situation
from tests.faults.table import heading, line
from tests.faults.trial import run_trial

FAULTS = (*WHOLE_INSTALLATION, *OF_JOBS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--fault", default="", help="only faults whose name has these words")
    parser.add_argument("--phase", default="", help="only phases whose name has these words")
    parser.add_argument("--keep", type=Path, help="keep the files of the run in this directory")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.fault in fault.name]
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    broken = 0
    _say(heading())
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        for number, fault in enumerate(faults):
            phases = [phase for phase in fault.phases or PHASES if options.phase in phase.phase]
            if not phases:
                continue
            root = (options.keep or Path(name)) / str(number)
            with installed(root, MAX_CONCURRENT_JOBS=_slots(phases)) as place:
                for row in run_trial(place, fault, phases):
                    _say(line(row))
                    broken += bool(row.seen.violations)
    return 1 if broken else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _slots(phases: Sequence[type[Situation]]) -> str:
    return str(max(1, sum(phase.holds_slot for phase in phases)))


sys.exit(main())
