"""A bare repository of the fake GitHub: read its branches, and commit to them from outside."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fakes.github.git import git


class LogEntry(NamedTuple):
    """One line of a branch's history."""

    sha: str
    subject: str
    author: str


class BareRepository:
    """The git data of a repository. Every answer is computed from the files on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, default_branch: str) -> None:
        """Create the empty repository on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        git(
            self.path,
            "init",
            "--quiet",
            "--bare",
            "--template=",
            f"--initial-branch={default_branch}",
        )

    def branches(self) -> dict[str, str]:
        """Return the head commit of each branch."""
        listing = self._text(
            "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads"
        )
        # Not `splitlines`, which also splits at U+2028: branch names may contain it.
        pairs = (line.split(" ", 1) for line in listing.split("\n") if line)
        return {name: sha for sha, name in pairs}

    def log(self, branch: str) -> list[LogEntry]:
        """Return a branch's history, newest first."""
        lines = self._text("log", "--format=%H%x00%s%x00%an", f"refs/heads/{branch}").splitlines()
        return [LogEntry(*line.split("\0")) for line in lines]

    def read(self, revision: str, path: str) -> str:
        """Return the text of a file at a branch or commit."""
        return self._text("cat-file", "blob", f"{revision}:{path}")

    def ahead(self, base: str, head: str) -> int:
        """Return the number of commits of `head` that `base` does not have."""
        return int(self._text("rev-list", "--count", f"{base}..{head}"))

    def diff(self, base: str, head: str) -> str:
        """Return the changes of `head` since its merge base with `base`, as a patch."""
        return self._text("diff", "--find-renames", f"{base}...{head}")

    def changed_lines(self, base: str, head: str) -> list[tuple[int, int]]:
        """Return added and removed lines for each file changed since the merge base."""
        listing = self._text("diff", "--numstat", f"{base}...{head}")
        counts = (line.split("\t")[:2] for line in listing.splitlines())
        return [(_lines(added), _lines(removed)) for added, removed in counts]

    def delete(self, branch: str) -> None:
        """Delete a branch."""
        self._text("update-ref", "-d", f"refs/heads/{branch}")

    def commit(
        self, branch: str, parent: str | None, files: Mapping[str, str | bytes | None], message: str
    ) -> str:
        """Commit to a branch without a worktree, and return the sha.

        Args:
            branch: the branch to move; created if it does not exist.
            parent: the parent commit; None for the first commit.
            files: the new content of each path; None deletes it.
            message: the commit message.
        """
        lines = [
            f"commit refs/heads/{branch}\ncommitter GitHub <github@example.invalid> "
            f"{int(time.time())} +0000\n".encode(),
            _data(message),
            f"from {parent}\n".encode() if parent else b"",
            *(_change(path, content) for path, content in files.items()),
        ]
        git(self.path, "fast-import", "--quiet", "--date-format=raw", data=b"".join(lines))
        return self.branches()[branch]

    def _text(self, *arguments: str) -> str:
        return git(self.path, *arguments).decode("utf-8", "replace")


def _lines(count: str) -> int:
    """Parse a line count of `git diff --numstat`, which is `-` for a binary file."""
    return 0 if count == "-" else int(count)


def _data(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return b"data %d\n%b\n" % (len(raw), raw)


def _change(path: str, content: str | bytes | None) -> bytes:
    quoted = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    if content is None:
        return f'D "{quoted}"\n'.encode()
    return f'M 100644 inline "{quoted}"\n'.encode() + _data(content)
