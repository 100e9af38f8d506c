"""Map git's error messages to job failures. Git runs with LANG=C, so they are in English."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from domain.errors import JobFailure
from domain.failures import FailureCode
from workspace.git.credentials import GitCredentials
from workspace.git.runner import GitError

_MAX_QUOTE = 700
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NETWORK_COMMANDS = frozenset({"fetch", "push", "ls-remote", "submodule", "lfs"})
_NOISE = re.compile(
    r"hint:|To |Total |remote: *$|error: failed to push some refs|Everything up|Another git process"
    r"|an editor opened by|are terminated then|may have crashed|remove the file manually"
)

# The first rule that matches decides.
_Rule = tuple[FailureCode, bool, re.Pattern[str]]


def _rule(code: FailureCode, pattern: str, transient: bool = False) -> _Rule:
    return code, transient, re.compile(pattern, re.IGNORECASE)


# The server's git prints the reason only in lines that start with `remote:`.
_REF_RULES = (
    _rule(FailureCode.BRANCH_CONFLICT, r"(?s)' exists; cannot create.*\(failed to update ref"),
    _rule(
        FailureCode.BRANCH_MOVED,
        r"(?s)(but expected|reference already exists).*\(failed to update ref",
    ),
    _rule(FailureCode.GITHUB_UNAVAILABLE, r"\[remote rejected\].*\(failed to update ref", True),
)
_PUSH_RULES = (
    _rule(FailureCode.BRANCH_CONFLICT, r"\[remote rejected\].*(directory file conflict|' exists;)"),
    _rule(FailureCode.BRANCH_MOVED, r"\[rejected\].*\((stale info|non-fast-forward|fetch first)"),
    _rule(
        FailureCode.BRANCH_MOVED, r"\[remote rejected\].*(but expected|reference already exists)"
    ),
    _rule(FailureCode.GITHUB_UNAVAILABLE, r"\[remote rejected\].*\(internal server error", True),
    _rule(FailureCode.GITHUB_PERMISSION, r"\[remote rejected\].*(without `?workflows?`?|scope)"),
    _rule(FailureCode.PUSH_REJECTED, r"\[remote rejected\]|protected branch|hook declined"),
)
_ACCESS_RULES = (
    _rule(FailureCode.GITHUB_UNAVAILABLE, r"returned error: (429|5\d\d)|rate limit", True),
    _rule(
        FailureCode.GITHUB_AUTHENTICATION,
        r"authentication failed|returned error: 401|could not read (username|password)",
    ),
    _rule(
        FailureCode.GITHUB_PERMISSION,
        r"returned error: 403|permission to \S+ denied|access .*not granted|archived so it is read",
    ),
    _rule(
        FailureCode.REPOSITORY_NOT_FOUND,
        r"returned error: (404|410|451)|repository '[^']*' (not found|does not exist)"
        r"|repository not found|does not appear to be a git repository",
    ),
)
# When git can open a file but not write it, the disk is usually full. Git often omits the reason.
_UNWRITTEN = (
    r"(unable to|couldn't|could not|failed to) write (?!.*: (permission denied|input/output error))"
)
_NO_SPACE_LEFT = r"no space left on device|out of diskspace|disk quota exceeded"
_LOCAL_RULES = (
    _rule(FailureCode.DISK_FULL, rf"{_NO_SPACE_LEFT}|{_UNWRITTEN}"),
    _rule(FailureCode.BRANCH_IN_USE, r"already (checked out|used by worktree) at", True),
    _rule(FailureCode.BRANCH_CONFLICT, r"cannot lock ref .*' exists; cannot create"),
)
_NETWORK_RULES = (
    _rule(
        FailureCode.GITHUB_UNAVAILABLE,
        r"could not resolve|(failed|couldn't|unable) to connect|connection (refused|reset|timed out"
        r"|was reset|died)|timed out|too slow|early eof|rpc failed|hung up unexpectedly"
        r"|unexpected disconnect|empty reply|transfer closed|recv failure|send failure|ssl_"
        r"|tls connect|gnutls|http/2 |curl \d+|unable to access|expected flush",
        True,
    ),
)
_DAMAGE = re.compile(
    r"not a git repository|bad object|is corrupt|object file .* is empty|unable to read (tree|sha1)"
    r"|missing blob|missing tree|does not match index|does not point to a valid object"
    r"|bad (tree|commit|blob) object|invalid sha1 pointer|could not parse|unexpected line in"
    r"|unterminated line in|reference broken|no such ref: refs/remotes/origin/head"
    r"|cat-file [0-9a-f]+: bad file|is not a git packfile|packfile \S+ (index not opened|cannot be)"
    r"|index file \S+ is too small|unable to unpack [0-9a-f]+ header|invalid object|missing object",
    re.IGNORECASE,
)


def is_damage(error: GitError) -> bool:
    """Return whether git found the mirror itself damaged."""
    return bool(_DAMAGE.search(_own_lines(error.stderr)))


def is_no_space(error: Exception) -> bool:
    """Return whether git or the system ran out of disk space."""
    if isinstance(error, GitError):
        return _classify(error)[0] is FailureCode.DISK_FULL
    return isinstance(error, OSError) and error.errno in _NO_SPACE


def failure_of(error: GitError, credentials: GitCredentials, doing: str) -> JobFailure:
    """Return the job failure for a failed command.

    Args:
        error: the error of the command.
        credentials: the secrets to remove from the message.
        doing: the operation, for example `Pushing owner/name`.
    """
    code, transient = _classify(error)
    if code is FailureCode.GITHUB_AUTHENTICATION and credentials.token_file is None:
        code = FailureCode.GITHUB_TOKEN_MISSING
    quote = credentials.redact(_useful(error.stderr)) or "nothing"
    return JobFailure(
        code, f"{doing} failed. {code.sentence} Git said: {quote}", transient=transient
    )


@contextlib.contextmanager
def as_job_failures(credentials: GitCredentials, doing: str) -> Iterator[None]:
    """Raise errors of git and of a full disk as `JobFailure`."""
    try:
        yield
    except GitError as error:
        raise failure_of(error, credentials, doing) from error
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        code = FailureCode.DISK_FULL
        raise JobFailure(code, f"{doing} failed. {code.sentence}") from error


def _classify(error: GitError) -> tuple[FailureCode, bool]:
    own = _own_lines(error.stderr)
    read = [(_REF_RULES, error.stderr), (_PUSH_RULES, own), (_LOCAL_RULES, own)]
    if error.arguments[0] in _NETWORK_COMMANDS:
        read += [(_ACCESS_RULES, error.stderr), (_NETWORK_RULES, own)]
    for rules, text in read:
        for code, transient, pattern in rules:
            if pattern.search(text):
                return code, transient
    # A killed command, and a lock that another git process holds for a moment, are transient.
    ended = error.exit_code is None or error.exit_code < 0
    return FailureCode.GIT_FAILED, ended or "cannot lock ref" in own or "File exists" in own


def _own_lines(stderr: str) -> str:
    """Return the lines of git itself, without those that the server wrote."""
    return "\n".join(line for line in stderr.splitlines() if not line.startswith("remote:"))


def _useful(stderr: str) -> str:
    """Return the last informative lines, joined to one line."""
    lines = [line.strip() for line in stderr.replace("\r", "\n").splitlines()]
    kept = [line for line in lines if line and not _NOISE.match(line)]
    return " | ".join(kept)[-_MAX_QUOTE:]
