"""Temporary empty repositories that use the objects of another repository.

Git obeys the configuration and the hooks of its repository. So commands that talk to the remote or
read a submodule run in an empty repository, which has neither. Measured with a planted hook,
`credential.helper`, `insteadOf`, proxy and `pushurl`: none was used.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from workspace.git.refs import HEADS
from workspace.git.runner import GitLocation

_CONFIGURATION = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"


@contextlib.asynccontextmanager
async def scratch_repository(
    scratch: Path, objects: Path, refs: Mapping[str, str]
) -> AsyncIterator[GitLocation]:
    """Create a repository that uses an object store, and delete it at the end.

    Args:
        scratch: the parent directory.
        objects: the object store that the repository reads and writes.
        refs: the initial refs: the sha by full name.
    """
    directory = _made(scratch)
    try:
        _fill(directory, refs)
        yield GitLocation(directory, objects=objects)
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, True)


def _made(scratch: Path) -> Path:
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=scratch, prefix="private-"))


def _fill(directory: Path, refs: Mapping[str, str]) -> None:
    (directory / "HEAD").write_text(f"ref: {HEADS}none\n")
    (directory / "config").write_text(_CONFIGURATION)
    (directory / "refs").mkdir()
    lines = [f"{sha} {name}\n" for name, sha in sorted(refs.items())]
    # Without a header line, git itself sorts the refs and peels the tags.
    (directory / "packed-refs").write_text("".join(lines), "utf-8", "surrogateescape")
