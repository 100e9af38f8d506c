"""Give git the GitHub token: only from a private file, and only for one server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from domain.errors import InvalidRequest
from sandbox import files
from workspace.git.runner import Setting

_TOKEN_FILE = "github-token"
_USER = "x-access-token"
_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_GITHUB_TOKEN = re.compile(r"\b(gh[oprsu]_|github_pat_)[A-Za-z0-9_]{20,}")
_HIDDEN = "***"
_PATH = re.compile(r"[a-z0-9._/-]+")
_PATHS_AT_ONCE = 1000


def write_token_file(directory: Path, token: str) -> Path:
    """Store the token for `GitCredentials` and return the file. An older token is replaced.

    Args:
        directory: created if it is missing, and readable by its owner only.
        token: one line of printable ASCII characters.

    Raises:
        InvalidRequest: the token has other characters.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidRequest("GITHUB_TOKEN must be one line of printable ASCII characters.")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    files.write(directory, _TOKEN_FILE, token.encode("ascii"), mode=0o600)
    return directory / _TOKEN_FILE


@dataclass(frozen=True)
class GitCredentials:
    """The token of one server.

    Args:
        server_url: for example `https://github.com`, or with a port.
        token_file: from `write_token_file`; None when there is no token.
    """

    server_url: str
    token_file: Path | None = None

    @property
    def origin(self) -> str:
        """The scheme, host and port of the server."""
        parts = urlsplit(self.server_url)
        return f"{parts.scheme}://{parts.netloc}"

    def settings(self, repositories: Collection[str] | None = None) -> list[Setting]:
        """Return the settings of a command that may use the token.

        The key of the helper contains the server, so submodules and redirects to other servers get
        no token.

        Args:
            repositories: the repositories the token is offered for, as `owner/name`. None means
                all of the server, for commands that reach only the repository they are given.
        """
        # An empty value drops the helpers of other configuration (gitcredentials(7)). Git would
        # hand them the token to store.
        settings = [("credential.helper", "")]
        if self.token_file is None:
            return settings
        key = f"credential.{self.origin}.helper"
        if repositories is None:
            return [*settings, (key, _helper(self.token_file))]
        prefix = urlsplit(self.server_url).path.strip("/")
        paths = sorted({f"{prefix}/{name}".strip("/").lower() for name in repositories})
        if any(not _PATH.fullmatch(path) for path in paths):
            raise InvalidRequest("A repository's name has characters that no path may have.")
        # An environment variable holds at most 128 KiB.
        parts = (
            paths[first : first + _PATHS_AT_ONCE] for first in range(0, len(paths), _PATHS_AT_ONCE)
        )
        helpers = ((key, _helper_for(self.token_file, part)) for part in parts)
        return [*settings, ("credential.useHttpPath", "true"), *helpers]

    def redact(self, text: str) -> str:
        """Return `text` without the token, user names in URLs, and strings like GitHub tokens."""
        token = self._token()
        if token:
            text = text.replace(token, _HIDDEN)
        return _GITHUB_TOKEN.sub(_HIDDEN, _IN_URL.sub(f"{_HIDDEN}@", text))

    def _token(self) -> str:
        if self.token_file is None:
            return ""
        try:
            return self.token_file.read_text("ascii")
        except (OSError, UnicodeDecodeError):
            return ""


def _helper(token_file: Path) -> str:
    # Git runs this shell function. The token itself passes only through a pipe.
    return f'!f() {{ test "$1" = get || exit 0; {_answer(token_file)}; }}; f'


def _helper_for(token_file: Path, paths: Collection[str]) -> str:
    """Return a helper that answers only for these paths, as git and git-lfs write them."""
    return (
        '!f() { test "$1" = get || exit 0; p=; '
        'while IFS= read -r l && test -n "$l"; do case "$l" in path=*) p=${l#path=};; esac; done; '
        'p=$(printf %s "$p" | tr A-Z a-z); p=${p%/info/lfs}; p=${p%.git}; '
        f'case "$p" in {"|".join(paths)}) ;; *) exit 0;; esac; {_answer(token_file)}; }}; f'
    )


def _answer(token_file: Path) -> str:
    return f"printf 'username={_USER}\\npassword='; cat {shlex.quote(str(token_file))}; echo"
