"""GitHub's names of owners and repositories."""

from __future__ import annotations

import pytest

from domain.errors import InvalidRequest
from domain.repositories import validate_owner_name, validate_repository_name

OWNERS = (
    "a",
    "A",
    "7",
    "octocat",
    "Octo-Cat",
    "a-b-c-d",
    "1-2",
    "x" * 39,
    "alice_contoso",
    "a-b_corp",
    "x" * 33 + "_admin",
)

NO_OWNERS = (
    "",
    " ",
    "-a",
    "a-",
    "a--b",
    "-",
    "a_",
    "_a",
    "a__b",
    "a_b_c",
    "a-_b",
    "a_b-c",
    "a.b",
    "a b",
    "a/b",
    "..",
    "a\n",
    "\na",
    "a\0",
    "ä",
    "٣",
    "ａ",
    "a\u200b",
    "\ud800",
    "@a",
    "a:b",
    "a@github.com",
    "x" * 40,
    "x" * 34 + "_admin",
    "a_" + "b" * 1000,
    "x" * 100_000,
)

REPOSITORIES = (
    "a",
    "site",
    "Web.Site_2-x",
    ".github",
    "...",
    "-",
    "_",
    "--x",
    "1",
    "git",
    "a.git.io",
    "dotfiles.gitx",
    "x" * 100,
)

NO_REPOSITORIES = (
    "",
    " ",
    ".",
    "..",
    "a.git",
    "A.GIT",
    ".git",
    "a/b",
    "a\\b",
    "../x",
    "a b",
    "a\n",
    "a\0",
    "a:b",
    "a?b",
    "a#b",
    "a%2Fb",
    "ä",
    "٣",
    "🚀",
    "\ud800",
    "x" * 101,
    "x" * 100_000,
)


@pytest.mark.parametrize("name", OWNERS)
def test_valid_owner_names(name: str) -> None:
    assert validate_owner_name(name) == name


@pytest.mark.parametrize("name", NO_OWNERS, ids=lambda name: ascii(name[:40]))
def test_invalid_owner_names(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate_owner_name(name)
    assert refused.value.message == (
        f"githubOrg {name[:80]!r} is not a GitHub owner name: use letters, digits and single "
        "dashes, at most 39 characters."
    )


@pytest.mark.parametrize("name", REPOSITORIES)
def test_valid_repository_names(name: str) -> None:
    assert validate_repository_name(name) == name


@pytest.mark.parametrize("name", NO_REPOSITORIES, ids=lambda name: ascii(name[:40]))
def test_invalid_repository_names(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate_repository_name(name)
    assert refused.value.message == (
        f"githubRepo {name[:120]!r} is not a GitHub repository name: use letters, digits, '.', "
        "'-' and '_', at most 100 characters, without '.git' at the end."
    )
