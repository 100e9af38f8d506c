"""`make faults`: strike every phase with every fault, and print what became of the jobs."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.plans import all_plans, carry_out
from tests.faults.table import heading, line


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--fault", default="", help="only faults whose name has these words")
    parser.add_argument("--phase", default="", help="only phases whose name has these words")
    parser.add_argument("--keep", type=Path, help="keep the files of the run in this directory")
    options = parser.parse_args()
    # As with Ctrl-C, what runs is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    rows = broken = 0
    _say(heading())
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        for number, whole in enumerate(all_plans()):
            plan = [
                (fault, phase)
                for fault, phase in whole
                if options.fault in fault.name and options.phase in phase.phase
            ]
            if not plan:
                continue
            for row in carry_out(plan, (options.keep or Path(name)) / str(number)):
                _say(line(row))
                rows += 1
                broken += row.is_late or bool(row.seen.violations)
    _say(f"{rows - broken} held, {broken} broken")
    return 1 if broken else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
