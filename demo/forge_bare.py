"""A bare repository of the forge: what its branches hold, and how to move them from outside."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from demo.forge_plumbing import git

_COMMIT_FIELDS = "%H%n%T%n%P%n%an%n%ae%n%ad%n%cn%n%ce%n%cd%n%B"
_GITHUB_DATE = "--date=format-local:%Y-%m-%dT%H:%M:%SZ"


class LogEntry(NamedTuple):
    """One line of a branch's history."""

    sha: str
    subject: str
    author: str


class Signature(NamedTuple):
    """Who did something in a commit; `date` is ISO 8601 in UTC."""

    name: str
    email: str
    date: str


class Commit(NamedTuple):
    """One commit in full."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: Signature
    committer: Signature
    message: str


class BareRepository:
    """The git side of a repository; every answer is computed from the files as they are now."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, default_branch: str) -> None:
        """Make the empty repository on disk."""
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
        """Return the commit of every branch."""
        listing = self._text(
            "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads"
        )
        # Not `splitlines`: a name may contain U+2028, which it takes for the end of a line.
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
        """Return how many commits `head` has that `base` has not."""
        return int(self._text("rev-list", "--count", f"{base}..{head}"))

    def commits(self, base: str, head: str) -> list[Commit]:
        """Return the commits that `head` has and `base` has not, oldest first."""
        return self._commits("--reverse", f"{base}..{head}")

    def commit_of(self, sha: str) -> Commit:
        """Return one commit in full."""
        return self._commits("--max-count=1", sha)[0]

    def diff(self, base: str, head: str, *paths: str) -> str:
        """Return what `head` changed since it left `base`, as a patch."""
        return self._text("diff", "--find-renames", f"{base}...{head}", "--", *paths)

    def diff_fields(self, kind: str, base: str, head: str) -> list[str]:
        """Return the fields of `git diff <kind> -z`, where `kind` is `--raw` or `--numstat`."""
        output = self._text("diff", kind, "-z", "--no-abbrev", "--find-renames", f"{base}...{head}")
        return output.split("\0")[:-1]

    def delete(self, branch: str) -> None:
        """Delete a branch."""
        self._text("update-ref", "-d", f"refs/heads/{branch}")

    def commit(
        self, branch: str, parent: str | None, files: Mapping[str, str | bytes | None], message: str
    ) -> str:
        """Put a commit on a branch without any worktree, and return its sha.

        Args:
            branch: the branch to move; made when it does not exist.
            parent: the commit it builds on; None for a first commit.
            files: the new content of each path; None deletes it.
            message: the commit message.
        """
        lines = [
            f"commit refs/heads/{branch}\ncommitter Forge <forge@example.invalid> "
            f"{int(time.time())} +0000\n".encode(),
            _data(message),
            f"from {parent}\n".encode() if parent else b"",
            *(_change(path, content) for path, content in files.items()),
        ]
        git(self.path, "fast-import", "--quiet", "--date-format=raw", data=b"".join(lines))
        return self.branches()[branch]

    def _commits(self, *revisions: str) -> list[Commit]:
        output = self._text("log", "-z", f"--format={_COMMIT_FIELDS}", _GITHUB_DATE, *revisions)
        return [_parse_commit(record) for record in output.split("\0") if record]

    def _text(self, *arguments: str) -> str:
        return git(self.path, *arguments).decode("utf-8", "replace")


def _parse_commit(record: str) -> Commit:
    sha, tree, parents, *people, message = record.split("\n", 9)
    return Commit(
        sha, tree, tuple(parents.split()), Signature(*people[:3]), Signature(*people[3:]), message
    )


def _data(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return b"data %d\n%b\n" % (len(raw), raw)


def _change(path: str, content: str | bytes | None) -> bytes:
    quoted = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    if content is None:
        return f'D "{quoted}"\n'.encode()
    return f'M 100644 inline "{quoted}"\n'.encode() + _data(content)
