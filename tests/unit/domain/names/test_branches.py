"""Branch names, compared with the rules of git."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import pytest

from domain.errors import InvalidRequest
from domain.names.branches import (
    MAX_BRANCH_BYTES,
    retry_branch_name,
    task_branch_name,
    validate_branch_name,
)

GOOD = (
    "main",
    "feature/logout-button",
    "a/b/c/d",
    "x",
    "UPPER_lower-1.2.3",
    "user@host",
    "a@",
    "@a",
    "release/1.x",
    "head",
    "HEADS",
    "a/HEADLINE",
    "heads/main",
    "my-refs/x",
    "lock",
    "a.lockx",
    "a.b.c",
    "a-",
    "ümlaut/größe",
    "🚀",
    "日本語/ブランチ",
    "$(id)",
    "`id`",
    "a;b|c&d>e<f",
    "a'b\"c",
    "a!b#c%d+e,f=g",
    "{a}",
    "feature/x-retry-1767000000000",
    "x" * MAX_BRANCH_BYTES,
    "0" * 39,
    "0" * 41,
    "0" * 64,
    "a/" + "0" * 40,
)

REFUSED = {
    "": "it is empty",
    "x" * (MAX_BRANCH_BYTES + 1): "it is too long",
    "ä" * (MAX_BRANCH_BYTES // 2) + "x": "it is too long",
    "a b": "it has a space",
    " a": "it has a space",
    "a\tb": "it has a space",
    "a\nb": "it has a space",
    "a\x00b": "it has a space",
    "a\x7f": "it has a space",
    "a\x85b": "it has a character that ends a line",
    "a\u2028b": "it has a character that ends a line",
    "a\u2029b": "it has a character that ends a line",
    "a~1": "it has a space",
    "a^": "it has a space",
    "a:b": "it has a space",
    "a?": "it has a space",
    "a*": "it has a space",
    "a[b": "it has a space",
    "a\\b": "it has a space",
    "\ud800": "it is not valid Unicode",
    "a\udfffb": "it is not valid Unicode",
    "-": "it starts with a dash",
    "-a": "it starts with a dash",
    "--upload-pack=id": "it starts with a dash",
    "refs/heads/main": "it starts with refs/",
    "refs/x": "it starts with refs/",
    "@": "it is @ or contains @{",
    "a@{b": "it is @ or contains @{",
    "@{-1}": "it is @ or contains @{",
    "a..b": "it contains two dots in a row",
    "../x": "it contains two dots in a row",
    "a.": "it ends with a dot",
    "/": "it has an empty part",
    "/a": "it has an empty part",
    "a/": "it has an empty part",
    "a//b": "it has an empty part",
    ".a": "a part of it starts with a dot",
    "a/.b": "a part of it starts with a dot",
    "a.lock": "a part of it ends with .lock",
    "a.lock/b": "a part of it ends with .lock",
    "HEAD": "HEAD is reserved",
    "a/HEAD": "HEAD is reserved",
    "HEAD/a": "HEAD is reserved",
    "0" * 40: "it looks like a commit id",
    "deadbeef" * 5: "it looks like a commit id",
    "DeadBeef" * 5: "it looks like a commit id",
}

PIECES = (
    *"aZ9/.-@{}~^:?*[\\ _+=",
    *("..", "@{", "//", ".lock", "lock", "HEAD", "refs/", "heads/", "\t", "\x01", "\x7f", "\x1f"),
    *("ä", "🚀", "\u0085", "\u00a0", "\u200b", "x/y", "/.", "./", "-x"),
)


@pytest.mark.parametrize("name", GOOD)
def test_valid_branch_names(name: str) -> None:
    assert validate_branch_name(name) == name


@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=ascii)
def test_invalid_branch_names(name: str, reason: str) -> None:
    assert refusal(name).startswith(
        f"branchName {name[:80]!r} is not a valid branch name: {reason}"
    )


def test_the_error_names_the_field() -> None:
    with pytest.raises(InvalidRequest, match="^defaultBranch 'a b' is not a valid branch name"):
        validate_branch_name("a b", field="defaultBranch")


def test_the_error_is_one_short_line() -> None:
    sentence = refusal("a\n\x1b[31m" + "x" * 10_000)
    assert len(sentence) < 200
    assert sentence.isprintable()
    assert sentence.endswith(".")


def test_git_accepts_every_accepted_name(tmp_path: Path) -> None:
    draw = random.Random(20260301)
    names = {"".join(draw.choices(PIECES, k=draw.randint(1, 5))) for _ in range(400)}
    names |= {name for name in (*GOOD, *REFUSED) if name.isprintable() or name.isascii()}
    names -= {name for name in names if "\0" in name}
    own = (
        "it is @",
        "it starts with refs/",
        "HEAD is reserved",
        "it is too long",
        "it looks like",
        "it has a character that",
    )
    accepted = 0
    for name in sorted(names):
        reason = refusal(name).partition(": ")[2]
        if not reason:
            accepted += 1
            assert git_accepts(name, tmp_path), ascii(name)
        elif git_accepts(name, tmp_path):
            assert reason.startswith(own), f"{name!a} is refused without need: {reason}"
    # The comparison is meaningless if one side refuses every name.
    assert 50 < accepted < len(names) - 100


def refusal(name: str) -> str:
    try:
        validate_branch_name(name)
    except InvalidRequest as error:
        return error.message
    return ""


def git_accepts(name: str, directory: Path) -> bool:
    """Return git's verdict, outside of a repository to which `@{-1}` could refer."""
    result = subprocess.run(
        ["git", "check-ref-format", "--branch", name],
        cwd=directory,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(directory)},
        capture_output=True,
        check=False,
        timeout=10,
    )
    return result.returncode == 0 and result.stdout.decode() == f"{name}\n"


class TestMadeNames:
    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.time_ns", lambda: 1_767_000_000_123_999_999)

    def test_task_branch_name(self) -> None:
        assert task_branch_name() == "task-1767000000123"

    @pytest.mark.parametrize(
        ("original", "stem"),
        [
            ("feature/x", "feature/x"),
            ("x-retry-1700000000000", "x"),
            ("x-retry-1", "x"),
            ("x-retry-1-retry-2", "x-retry-1"),
            ("x-retry-", "x-retry-"),
            ("x-retry-abc", "x-retry-abc"),
            ("retry-1", "retry-1"),
            ("a/-retry-1", "a"),
            ("task-1767000000000", "task-1767000000000"),
            ("🚀", "🚀"),
        ],
    )
    def test_retry_branch_name(self, original: str, stem: str) -> None:
        assert retry_branch_name(original) == f"{stem}-retry-1767000000123"

    @pytest.mark.parametrize(
        "original",
        [
            "x" * MAX_BRANCH_BYTES,
            "🚀" * (MAX_BRANCH_BYTES // 4),
            "a/" * 111 + "b" * 22,
            "a." * 111 + "b" * 22,
            "a/b" * 81,
        ],
    )
    def test_retry_of_the_longest_name(self, original: str) -> None:
        assert validate_branch_name(original) == original
        made = retry_branch_name(original)
        assert validate_branch_name(made) == made
        assert made.endswith("-retry-1767000000123")
        assert MAX_BRANCH_BYTES - 6 <= len(made.encode()) <= MAX_BRANCH_BYTES
        assert re.match(re.escape(original[:50]), made)

    @pytest.mark.parametrize("original", GOOD)
    def test_a_retry_of_a_valid_name_is_valid(self, original: str) -> None:
        once = retry_branch_name(original)
        assert validate_branch_name(once) == once
        assert retry_branch_name(once) == once
