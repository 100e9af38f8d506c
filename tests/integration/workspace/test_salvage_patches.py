"""Patches of kept work, applied to a new clone."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.workspace.conftest import NAME, OWNER, REGISTERED, Host, as_claude
from workspace.salvage import salvage
from workspace.salvage.salvage import Salvaged

CONTENTS = {
    "text": b"one\ntwo\nthree\n",
    "empty": b"",
    "crlf": b"one\r\ntwo\r\n",
    "mixed": b"one\r\ntwo\nthree\r",
    "no end": b"one\ntwo",
    "latin": "caf\u00e9\n".encode("latin-1"),
    "binary": bytes(range(256)) * 40,
    "late nul": b"text\n" * 3000 + b"\0\n",
    "spaces": b"trailing  \n\t \n\n\n",
    "like a patch": b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\ndiff --git a/x b/x\n",
    "separators": "a\u2028b\x0cc\x85d\n".encode(),
}
NAMES = [
    b"plain",
    b"with space ",
    b" b b",
    b'q"uote',
    b"back\\slash",
    b"tab\tand\nnewline",
    "f\u00fcr \u4f60".encode(),
    b"caf\xe9",
    b"-dash",
    b":(top)magic",
    b"deep/er/and/deeper",
    b"noise.log",
    b"#hash",
    b"{brace => other}",
]


def path_of(root: Path, name: bytes) -> Path:
    return root / os.fsdecode(name)


def write(root: Path, name: bytes, content: bytes) -> None:
    file = path_of(root, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


async def tree_after_plain_apply(host: Host, kept: Salvaged, *, index: bool = False) -> str:
    """Apply the patch to a new clone at the base, and return the tree."""
    assert kept.patch is not None
    fresh, file = host.directory / "fresh", host.directory / "kept.patch"
    shutil.rmtree(fresh, ignore_errors=True)
    file.write_text(kept.patch, "utf-8", newline="")
    origin = host.github.root / OWNER / f"{NAME}.git"
    as_claude(host.directory, "clone", "--quiet", "--no-checkout", str(origin), str(fresh))
    as_claude(fresh, "checkout", "--quiet", "--detach", kept.base_sha)
    if index:
        as_claude(fresh, "apply", "--index", str(file))
    elif kept.patch:
        as_claude(fresh, "apply", str(file))
        as_claude(fresh, "add", "--all", "--force")
    return as_claude(fresh, "write-tree")


async def tree_restored_on_another_host(host: Host, kept: Salvaged) -> str:
    """Restore the work on another host from the patch, and return the tree."""
    other = Host(host.directory / "other", host.github)
    await other.mirrors.fetch(OWNER, NAME)
    worktree = await other.worktrees.create_from_salvage(
        *(OWNER, NAME, "again", "again", "job"),
        *(kept.base_sha, kept.head_sha, kept.patch, REGISTERED),
    )
    assert (worktree.base_sha, worktree.notices) == (kept.base_sha, ())
    assert as_claude(worktree.path, "rev-parse", "HEAD") == kept.base_sha
    tree = as_claude(worktree.path, "write-tree")
    as_claude(worktree.path, "add", "--all")
    assert as_claude(worktree.path, "write-tree") == tree
    await other.removal.remove(OWNER, NAME, "again")
    shutil.rmtree(other.directory)
    return tree


async def require_exact_patch(host: Host, *, index: bool = False) -> str:
    """Check that the patch of the job restores its exact files, and return the patch."""
    worktree = await host.worktrees.find(OWNER, NAME, "job")
    assert worktree is not None
    await host.salvage.keep(worktree)
    kept = await host.salvage.kept(OWNER, NAME, "job")
    assert kept is not None
    assert kept.patch is not None
    kept.patch.encode("utf-8")
    assert "\0" not in kept.patch
    wanted = as_claude(host.mirror_path, "rev-parse", f"{kept.head_sha}^{{tree}}")
    assert await tree_after_plain_apply(host, kept, index=index) == wanted
    assert await tree_restored_on_another_host(host, kept) == wanted
    return kept.patch


def add_to_main(host: Host, prepare: Callable[[Path], None]) -> None:
    """Commit files to main before the job starts."""
    author = host.directory / "author"
    origin = host.github.root / OWNER / f"{NAME}.git"
    as_claude(host.directory, "clone", "--quiet", str(origin), str(author))
    prepare(author)
    as_claude(author, "add", "--all", "--force")
    as_claude(author, "commit", "--quiet", "--allow-empty", "-m", "Base")
    as_claude(author, "push", "--quiet", "origin", "HEAD:main")


@pytest.mark.parametrize("kind", CONTENTS)
async def test_any_content_is_restored(host: Host, kind: str) -> None:
    content = CONTENTS[kind]

    def prepare(root: Path) -> None:
        for name in (b"changed", b"gone", b"moved"):
            write(root, name, content)
        write(root, b"filled", b"")

    add_to_main(host, prepare)
    worktree = await host.start("job")
    write(worktree.path, b"new", content)
    write(worktree.path, b"filled", content)
    write(worktree.path, b"changed", content + b"more\n")
    (worktree.path / "gone").unlink()
    (worktree.path / "moved").rename(worktree.path / "there")
    await require_exact_patch(host)


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_is_restored(host: Host, name: bytes) -> None:
    def prepare(root: Path) -> None:
        for old in (b"old", name + b"1", name + b"2"):
            write(root, old, b"one\ntwo\n")

    add_to_main(host, prepare)
    worktree = await host.start("job")
    write(worktree.path, name, b"")
    write(worktree.path, name + b"1", b"one\ntwo\nthree\n")
    path_of(worktree.path, name + b"2").chmod(0o755)
    (worktree.path / "old").rename(path_of(worktree.path, name + b"3"))
    as_claude(worktree.path, "add", "--all", "--force")
    await require_exact_patch(host)


async def test_type_changes_are_restored(host: Host) -> None:
    def prepare(root: Path) -> None:
        for name in (b"file", b"directory/file", b"mode", b"to link"):
            write(root, name, b"one\n")
        (root / "link").symlink_to("file")
        (root / "link to directory").symlink_to("directory")

    add_to_main(host, prepare)
    worktree = await host.start("job")
    root = worktree.path
    for name in ("file", "to link", "link", "link to directory"):
        (root / name).unlink()
    shutil.rmtree(root / "directory")
    write(root, b"file/now a directory", b"two\n")
    write(root, b"link to directory/file", b"three\n")
    write(root, b"directory", b"four\n")
    (root / "link").symlink_to("/elsewhere")
    (root / "to link").symlink_to("caf\u00e9")
    (root / "mode").chmod(0o755)
    await require_exact_patch(host)


async def test_line_ending_conversion_is_not_a_change(host: Host) -> None:
    def prepare(root: Path) -> None:
        write(root, b".gitattributes", b"*.txt text eol=crlf\n*.raw -text\n*.dat diff\n")
        write(root, b"a.txt", b"one\r\ntwo\r\n")
        write(root, b"a.raw", b"one\r\ntwo\r\n")

    add_to_main(host, prepare)
    worktree = await host.start("job")
    assert (worktree.path / "a.txt").read_bytes() == b"one\r\ntwo\r\n"
    write(worktree.path, b"a.txt", b"one\r\nthree\r\n")
    write(worktree.path, b"a.raw", b"one\r\nthree\n")
    write(worktree.path, b"new.dat", bytes(range(256)))
    await require_exact_patch(host)


async def test_submodules_are_restored(host: Host) -> None:
    host.github.create_repository(OWNER, "Part", {"part.py": "1\n"})
    first = host.github.branches(OWNER, "Part")["main"]
    second = host.github.commit(OWNER, "Part", "main", {"part.py": "2\n"}, "Two")

    def prepare(root: Path) -> None:
        lines = [f'[submodule "{name}"]\n\tpath = {name}\n\turl = ../Part.git\n' for name in "abc"]
        write(root, b".gitmodules", "".join(lines).encode())
        for name in "ab":
            as_claude(root, "update-index", "--add", "--cacheinfo", f"160000,{first},{name}")
            (root / name).mkdir()

    add_to_main(host, prepare)
    worktree = await host.start("job")
    as_claude(worktree.path / "a", "checkout", "--quiet", second)
    as_claude(worktree.path, "rm", "--quiet", "-f", "b")
    as_claude(worktree.path, "update-index", "--add", "--cacheinfo", f"160000,{first},c")
    (worktree.path / "c").mkdir()
    assert "Subproject commit" in await require_exact_patch(host, index=True)


@pytest.mark.parametrize("seed", range(8))
async def test_random_changes_are_restored(host: Host, seed: int) -> None:
    chance = random.Random(seed)

    def scatter(root: Path, number: int) -> None:
        for name in chance.sample(NAMES, number):
            write(root, b"%d/" % chance.randrange(3) + name, chance.choice([*CONTENTS.values()]))

    add_to_main(host, lambda root: scatter(root, 9))
    worktree = await host.start("job")
    files = sorted(file for file in worktree.path.glob("[0-9]/**/*") if file.is_file())
    for file in files:
        match chance.randrange(5):
            case 0:
                file.unlink()
            case 1:
                file.chmod(0o755)
            case 2:
                file.write_bytes(file.read_bytes() + chance.randbytes(chance.randrange(40)))
            case 3:
                file.rename(file.with_name(f"{file.name} moved"))
    scatter(worktree.path, 5)
    as_claude(worktree.path, "add", "--all", "--force")
    await require_exact_patch(host)


async def test_empty_commits_give_an_empty_patch(host: Host) -> None:
    worktree = await host.start("job")
    as_claude(worktree.path, "commit", "--quiet", "--allow-empty", "-m", "Nothing")
    assert await require_exact_patch(host) == ""


async def test_patch_over_the_limit_is_not_stored(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "MAX_PATCH_BYTES", 50_000)
    worktree = await host.start("job")
    write(worktree.path, b"new", b"the same line\n" * 10_000)
    assert "GIT binary patch" in await require_exact_patch(host)
    write(worktree.path, b"new", random.Random(0).randbytes(100_000))
    await host.salvage.keep(worktree)
    kept = await host.salvage.kept(OWNER, NAME, "job")
    assert kept is not None
    assert kept.patch is None
