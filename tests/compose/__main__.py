"""`make test-compose`: run docker-compose.yml on a real Docker engine.

The engine comes from Debian's packages and changes nothing on the host: it builds in the host's
network and runs the containers in a network namespace of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.compose import images, programs
from tests.compose.engine import running_engine


def main() -> int:
    """Build the images, then run `life_cycle` in a namespace."""
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.add_argument("--keep", type=Path, help="keep the engine's images in this directory")
    options = parser.parse_args()
    missing = programs.missing()
    if os.geteuid() != 0 or missing:
        what = f"Missing: {', '.join(missing)}." if missing else "You are not root."
        sys.stderr.write(f"The Compose tests need root on Debian, with its package tools. {what}\n")
        return 1
    programs.unpack()
    with tempfile.TemporaryDirectory(prefix="compose-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        data = options.keep or directory / "engine"
        with running_engine(data) as engine:
            images.make_base(engine, directory)
            images.build(engine, directory)
        command = [sys.executable, "-m", "tests.compose.life_cycle", str(data), name]
        return subprocess.run(["unshare", "--net", *command], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
