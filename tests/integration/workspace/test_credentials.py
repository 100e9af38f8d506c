from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from domain.errors import InvalidRequest
from tests.integration.workspace.conftest import TOKEN
from workspace.git.credentials import GitCredentials, write_token_file
from workspace.git.runner import Git, GitLocation

ODD = "a 'quoted' \"name\" with $dollar and `tick`"


async def ask(credentials: GitCredentials, at: Path, url: str) -> str:
    """Return what git is told for a URL, or nothing when it would have to ask a person."""
    return await Git(os.environ["PATH"]).run(
        "credential",
        "fill",
        at=GitLocation(at),
        settings=credentials.settings(),
        stdin=f"url={url}\n\n".encode(),
        accept=(0, 128),
    )


def test_the_token_file_is_private(tmp_path: Path) -> None:
    file = write_token_file(tmp_path / "deep" / "secrets", TOKEN + "\n")
    assert file.read_text() == TOKEN
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_new_token_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    write_token_file(tmp_path, "old")
    assert write_token_file(tmp_path, "new").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["github-token"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize("token", ["", "  ", "a\nb", "a\0b", "gh\u00e4"])
def test_what_cannot_be_a_token_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        write_token_file(tmp_path, token)
    assert not list(tmp_path.iterdir())
    assert not token.strip() or token not in caught.value.message


@pytest.mark.parametrize("directory", ["plain", ODD])
async def test_git_is_told_the_token_for_the_server(tmp_path: Path, directory: str) -> None:
    file = write_token_file(tmp_path / directory, TOKEN)
    told = await ask(
        GitCredentials("https://git.example", file), tmp_path, "https://git.example/o/r.git"
    )
    assert "username=x-access-token\n" in told
    assert f"password={TOKEN}\n" in told


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/o/r.git",
        "http://git.example/o/r.git",
        "https://git.example:444/o/r.git",
        "https://sub.git.example/o/r.git",
        "https://git.example.elsewhere.example/o/r.git",
        "https://git.example@elsewhere.example/o/r.git",
    ],
)
async def test_git_is_told_nothing_for_any_other_server(tmp_path: Path, url: str) -> None:
    file = write_token_file(tmp_path / "secrets", TOKEN)
    assert TOKEN not in await ask(GitCredentials("https://git.example", file), tmp_path, url)


async def test_a_server_below_a_path_works_too(tmp_path: Path) -> None:
    file = write_token_file(tmp_path / "secrets", TOKEN)
    credentials = GitCredentials("https://corp.example:8443/git", file)
    assert TOKEN in await ask(credentials, tmp_path, "https://corp.example:8443/git/o/r.git")


async def test_without_a_token_git_is_told_nothing(tmp_path: Path) -> None:
    assert await ask(GitCredentials("https://git.example"), tmp_path, "https://git.example/o") == ""


@pytest.mark.parametrize("key", ["credential.helper", "credential.https://git.example.helper"])
@pytest.mark.parametrize("protected", [False, True])
async def test_a_helper_in_a_repository_is_not_handed_the_token(
    tmp_path: Path, key: str, protected: bool
) -> None:
    git, planted = Git(os.environ["PATH"]), tmp_path / "planted"
    await git.run("init", "--quiet", "--bare", at=GitLocation(tmp_path))
    await git.run("config", key, f"!touch {planted}; :", at=GitLocation(tmp_path))
    credentials = GitCredentials("https://git.example", write_token_file(tmp_path / "s", TOKEN))
    settings = credentials.settings() if protected else []
    login = f"url=https://git.example\nusername=x\npassword={TOKEN}\n\n".encode()
    await git.run("credential", "approve", at=GitLocation(tmp_path), settings=settings, stdin=login)
    assert ("planted" in os.listdir(tmp_path)) is not protected


def test_settings_never_have_the_token_in_them(tmp_path: Path) -> None:
    settings = GitCredentials("https://git.example", write_token_file(tmp_path, TOKEN)).settings()
    assert settings[0] == ("credential.helper", "")
    assert TOKEN not in str(settings)


@pytest.mark.parametrize(
    "text",
    [
        "fatal: {token} is wrong",
        "https://x-access-token:{token}@github.com/o/r",
        "unknown ghp_0123456789abcdefghijABCDEFGHIJ456789 in here",
        "github_pat_0123456789abcdefghij_ABCDEFGHIJ456789",
    ],
)
def test_messages_are_redacted(tmp_path: Path, text: str) -> None:
    credentials = GitCredentials("https://git.example", write_token_file(tmp_path, TOKEN))
    redacted = credentials.redact(text.format(token=TOKEN))
    assert TOKEN not in redacted
    assert "0123456789" not in redacted
    assert "***" in redacted


def test_redacting_survives_a_missing_token_file(tmp_path: Path) -> None:
    credentials = GitCredentials("https://git.example", tmp_path / "gone")
    assert credentials.redact("git said no") == "git said no"
