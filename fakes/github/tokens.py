"""Who may do what on the fake GitHub: tokens, what they grant, and how they are presented."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TokenGrant:
    """What one token may do.

    Args:
        login: the user it belongs to.
        permission: whether it may push and open pull requests, or only read.
        repositories: the `owner/name` it may see; None for every repository.
        scopes: the `x-oauth-scopes` of a classic token; None for a fine-grained token.
    """

    login: str
    permission: Literal["read", "write"] = "write"
    repositories: frozenset[str] | None = None
    scopes: str | None = "repo"

    @property
    def writes(self) -> bool:
        """Whether the token may change anything."""
        return self.permission == "write"

    def sees(self, full_name: str) -> bool:
        """Whether the token may know that the repository exists."""
        return self.repositories is None or full_name in self.repositories


def presented_token(authorization: str | None) -> str | None:
    """Return the token in an `Authorization` header, or None when nothing was presented.

    A header that cannot be read presents the empty token, which is nobody's.
    """
    if not authorization:
        return None
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() in ("token", "bearer"):
        return credentials.strip()
    if scheme.lower() == "basic":
        return _basic_password(credentials)
    return ""


def find_grant(tokens: Mapping[str, TokenGrant], presented: str) -> TokenGrant | None:
    """Return what a token grants, looking at every known token for the same time."""
    found = None
    for token, grant in list(tokens.items()):
        if secrets.compare_digest(token.encode(), presented.encode()):
            found = grant
    return found


def _basic_password(credentials: str) -> str:
    try:
        decoded = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return decoded.partition(":")[2]
