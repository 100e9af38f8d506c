"""Time and disk to create the private repository of a job with a large mirror."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from workspace.mirrors.mirrors import Mirror
from workspace.worktree import private_repository
from workspace.worktree.worktree import Worktree

FILES = 20_000
BYTES = 17_000
BRANCHES = 500
RUNS = 9


def report() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        mirror = _mirror(Path(name))
        size = sum(file.stat().st_size for file in mirror.objects.rglob("*.pack")) / 1e6
        listed = _git(mirror.path, "for-each-ref", "--format=%(objectname) %(refname)").split()
        tracking = dict(zip(listed[1::2], listed[::2], strict=True))
        ours = [_made(mirror, Path(name, f"job-{run}"), tracking) for run in range(RUNS)]
        by_hand = [_cloned(mirror, Path(name, f"clone-{run}")) for run in range(RUNS)]
    print(
        f"private repository, {size:3.0f} MB mirror{statistics.median(ours):9.0f} ms; "
        f"git clone --shared {statistics.median(by_hand):.0f} ms  (goal: 150 or less)"
    )


def _made(mirror: Mirror, path: Path, tracking: dict[str, str]) -> float:
    sha = tracking["refs/remotes/origin/main"]
    worktree = Worktree("acme", "site", path.name, path, mirror.path, "feature/x", sha)
    began = time.perf_counter()
    private_repository.make(worktree, mirror, sha, tracking, lfs=False)
    return (time.perf_counter() - began) * 1000


def _cloned(mirror: Mirror, path: Path) -> float:
    began = time.perf_counter()
    _git(mirror.path, "clone", "--quiet", "--shared", "--no-checkout", ".", str(path))
    return (time.perf_counter() - began) * 1000


def _mirror(directory: Path) -> Mirror:
    path = directory / "site.git"
    _git(directory, "init", "--quiet", "--bare", str(path))
    data = b"".join(_history())
    subprocess.run(["git", "-C", path, "fast-import", "--quiet"], input=data, check=True)
    return Mirror("acme", "site", path, "https://example.com/acme/site.git")


def _history() -> Iterator[bytes]:
    """Create one commit with many incompressible files, at the head of many branches."""
    numbers = random.Random(7)
    yield b"commit refs/remotes/origin/main\nmark :1\ncommitter B <b@example.com> 1 +0000\ndata 0\n"
    for number in range(FILES):
        content = numbers.randbytes(BYTES)
        yield f"M 100644 inline {number // 200}/{number}.bin\ndata {BYTES}\n".encode()
        yield content + b"\n"
    for number in range(BRANCHES):
        yield f"reset refs/remotes/origin/branch-{number}\nfrom :1\n\n".encode()


def _git(directory: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    return subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, check=True, capture_output=True,
        text=True,
    ).stdout  # fmt: skip
