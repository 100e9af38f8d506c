"""`make faults`: inject every fault in every phase, and print the results of the jobs."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.batches import all_batches, run_batch
from tests.faults.table import heading, line


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--fault", default="", help="only faults whose name has these words")
    parser.add_argument("--phase", default="", help="only phases whose name has these words")
    parser.add_argument("--keep", type=Path, help="keep the files of the run in this directory")
    options = parser.parse_args()
    # As with Ctrl-C, stop everything on exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    rows = broken = 0
    _print(heading())
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        for number, pairs in enumerate(all_batches()):
            batch = [
                (fault, phase)
                for fault, phase in pairs
                if options.fault in fault.name and options.phase in phase.phase
            ]
            if not batch:
                continue
            for row in run_batch(batch, (options.keep or Path(name)) / str(number)):
                _print(line(row))
                rows += 1
                broken += row.is_late or bool(row.outcome.violations)
    _print(f"{rows - broken} held, {broken} broken")
    return 1 if broken else 0


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
