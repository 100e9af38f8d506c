"""Tokens of the fake GitHub: their grants, and how requests present them."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TokenGrant:
    """The permissions of one token.

    Args:
        login: the user of the token.
        permission: `write` may push and open pull requests.
        repositories: the visible `owner/name`; None for all repositories.
        scopes: the `x-oauth-scopes` of a classic token; None for a fine-grained token.
    """

    login: str
    permission: Literal["read", "write"] = "write"
    repositories: frozenset[str] | None = None
    scopes: str | None = "repo"

    @property
    def writes(self) -> bool:
        """Whether the token may change repositories."""
        return self.permission == "write"

    def sees(self, full_name: str) -> bool:
        """Return whether the repository is visible to the token."""
        return self.repositories is None or full_name in self.repositories


def presented_token(authorization: str | None) -> str | None:
    """Return the token in an `Authorization` header; None without a header.

    An invalid header gives the empty token, which has no grant.
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
    """Return the grant of a token, in the same time for every known token."""
    result = None
    for token, grant in list(tokens.items()):
        if secrets.compare_digest(token.encode(), presented.encode()):
            result = grant
    return result


def _basic_password(credentials: str) -> str:
    try:
        decoded = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return decoded.partition(":")[2]
