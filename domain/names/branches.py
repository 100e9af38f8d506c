"""Branch names: the rules of git, and further rules against dangerous or confusing names."""

from __future__ import annotations

import re
import time

from domain.errors import InvalidRequest

MAX_BRANCH_BYTES = 244
"""A ref is a file name on the remote: 255 bytes without `refs/heads/`."""

_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")
_LINE_END = re.compile(r"[\x85\u2028\u2029]")
_COMMIT_ID = re.compile(r"[0-9A-Fa-f]{40}")
_RETRY_SUFFIX = re.compile(r"-retry-\d+$")


def validate_branch_name(name: str, field: str = "branchName") -> str:
    """Return `name` if it is a valid branch name.

    The rules are those of `git check-ref-format --branch` (git-check-ref-format(1)) and five more.
    These refuse line separators, `@`, names that start with `refs/`, `HEAD` as a component, and 40
    hexadecimal digits, which GitHub refuses too (error GH002). `field` is the name of the caller's
    field.

    Raises:
        InvalidRequest: the name breaks a rule, which the message names.
    """
    reason = _why_refused(name)
    if reason:
        raise InvalidRequest(f"{field} {name[:80]!r} is not a valid branch name: {reason}.")
    return name


def _why_refused(name: str) -> str | None:
    components = name.split("/")
    rules = (
        (not name, "it is empty"),
        (len(name.encode("utf-8", "replace")) > MAX_BRANCH_BYTES, "it is too long"),
        (bool(_FORBIDDEN_CHARACTERS.search(name)), "it has a space or one of ~ ^ : ? * [ \\"),
        (bool(_LINE_END.search(name)), "it has a character that ends a line"),
        (any("\ud800" <= character <= "\udfff" for character in name), "it is not valid Unicode"),
        (name.startswith("-"), "it starts with a dash"),
        (name.startswith("refs/"), "it starts with refs/"),
        (name == "@" or "@{" in name, "it is @ or contains @{"),
        (".." in name, "it contains two dots in a row"),
        (name.endswith("."), "it ends with a dot"),
        ("" in components, "it has an empty part between slashes"),
        (any(part.startswith(".") for part in components), "a part of it starts with a dot"),
        (any(part.endswith(".lock") for part in components), "a part of it ends with .lock"),
        ("HEAD" in components, "HEAD is reserved"),
        (bool(_COMMIT_ID.fullmatch(name)), "it looks like a commit id"),
    )
    return next((reason for broken, reason in rules if broken), None)


def task_branch_name() -> str:
    """Return the default branch name of a task job: `task-<epoch milliseconds>`."""
    return f"task-{_epoch_ms()}"


def retry_branch_name(original: str) -> str:
    """Return `<original>-retry-<epoch milliseconds>`, without the suffix of an earlier retry."""
    suffix = f"-retry-{_epoch_ms()}"
    stem = _RETRY_SUFFIX.sub("", original)
    while len(stem.encode()) + len(suffix) > MAX_BRANCH_BYTES:
        stem = stem[:-1]
    return stem.rstrip("/.") + suffix


def _epoch_ms() -> int:
    return time.time_ns() // 1_000_000
