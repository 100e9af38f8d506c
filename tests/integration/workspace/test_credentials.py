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
    """Return git's credential for a URL; nothing if git would have to prompt for it."""
    return await Git(os.environ["PATH"]).run(
        "credential",
        "fill",
        at=GitLocation(at),
        settings=credentials.settings(),
        stdin=f"url={url}\n\n".encode(),
        accept=(0, 128),
    )


def test_token_file_is_private(tmp_path: Path) -> None:
    file = write_token_file(tmp_path / "deep" / "secrets", TOKEN + "\n")
    assert file.read_text() == TOKEN
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_new_token_replaces_the_old_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    write_token_file(tmp_path, "old")
    assert write_token_file(tmp_path, "new").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["github-token"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize("token", ["", "  ", "a\nb", "a\0b", "gh\u00e4"])
def test_invalid_token_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        write_token_file(tmp_path, token)
    assert not list(tmp_path.iterdir())
    assert not token.strip() or token not in caught.value.message


@pytest.mark.parametrize("directory", ["plain", ODD])
async def test_git_gets_the_token_for_the_server(tmp_path: Path, directory: str) -> None:
    file = write_token_file(tmp_path / directory, TOKEN)
    output = await ask(
        GitCredentials("https://git.example", file), tmp_path, "https://git.example/o/r.git"
    )
    assert "username=x-access-token\n" in output
    assert f"password={TOKEN}\n" in output


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
async def test_git_gets_no_token_for_another_server(tmp_path: Path, url: str) -> None:
    file = write_token_file(tmp_path / "secrets", TOKEN)
    assert TOKEN not in await ask(GitCredentials("https://git.example", file), tmp_path, url)


async def test_server_below_a_path_gets_the_token(tmp_path: Path) -> None:
    file = write_token_file(tmp_path / "secrets", TOKEN)
    credentials = GitCredentials("https://corp.example:8443/git", file)
    assert TOKEN in await ask(credentials, tmp_path, "https://corp.example:8443/git/o/r.git")


async def test_git_gets_nothing_without_a_token(tmp_path: Path) -> None:
    assert await ask(GitCredentials("https://git.example"), tmp_path, "https://git.example/o") == ""


@pytest.mark.parametrize("key", ["credential.helper", "credential.https://git.example.helper"])
@pytest.mark.parametrize("protected", [False, True])
async def test_credential_helper_of_a_repository_does_not_get_the_token(
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


def test_settings_do_not_contain_the_token(tmp_path: Path) -> None:
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


def test_redacting_works_without_a_token_file(tmp_path: Path) -> None:
    credentials = GitCredentials("https://git.example", tmp_path / "gone")
    assert credentials.redact("git said no") == "git said no"
