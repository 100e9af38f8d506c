"""How git gets the GitHub token: from a private file, for one server, and no other way."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from domain.errors import InvalidRequest
from workspace.command import Setting

_USER = "x-access-token"
_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_GITHUB_TOKEN = re.compile(r"\b(gh[oprsu]_|github_pat_)[A-Za-z0-9_]{20,}")
_HIDDEN = "***"


def write_token_file(directory: Path, token: str) -> Path:
    """Store the token for `GitCredentials` and return the file; an older one is replaced at once.

    Args:
        directory: made if need be, and closed to everybody but the owner.
        token: one line of printable characters.

    Raises:
        InvalidRequest: the token cannot be one.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidRequest("GITHUB_TOKEN must be one line of printable ASCII characters.")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=".token-")  # mode 0600
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
    return Path(name).replace(directory / "github-token")


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

    def settings(self) -> list[Setting]:
        """Return the settings of a command that may use the token.

        The empty helper drops every helper configured anywhere else (gitcredentials(7)), which
        would otherwise be handed the token to store. The key limits the answer to the server, so a
        submodule or a redirect elsewhere gets none.
        """
        settings = [("credential.helper", "")]
        if self.token_file is not None:
            settings.append((f"credential.{self.origin}.helper", _helper(self.token_file)))
        return settings

    def redact(self, text: str) -> str:
        """Return `text` without the token, user names in URLs, or anything like a GitHub token."""
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
    """Return the shell function that git asks; the token itself passes through a pipe only."""
    return (
        '!f() { test "$1" = get || exit 0; '
        f"printf 'username={_USER}\\npassword='; cat {shlex.quote(str(token_file))}; echo; }}; f"
    )
