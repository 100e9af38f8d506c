"""`make bench`: print measurements; nothing is asserted.

Times are medians. Values that depend on the machine are ratios or differences to the same work
without the orchestrator in the same run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench import (
    overhead,
    private_repositories,
    proxying,
    reading,
    sandboxes,
    storing,
)
from tests.stack import running_stack


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        with running_stack(Path(name) / "stack") as stack:
            reading.report_memory(stack)
            overhead.report(stack)
            reading.report_latency(stack)
    proxying.report()
    sandboxes.report()
    private_repositories.report()
    storing.report()


main()
