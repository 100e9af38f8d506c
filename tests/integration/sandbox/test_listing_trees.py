from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox import files
from workspace.worktree.deletion import delete_tree


def listed(root: Path) -> dict[str, bool]:
    """Return the listed paths, and whether each is a regular file."""
    return {name: entry.is_file(follow_symlinks=False) for name, entry in files.below(root)}


def test_everything_is_listed_and_no_link_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a" / "b").mkdir(parents=True)
    (outside / "c").mkdir(parents=True)
    (root / "a" / "file").touch()
    (root / "a" / "b" / "caf\udce9").touch()
    (root / "link").symlink_to(outside)
    os.mkfifo(root / "a" / "pipe")
    assert listed(root) == {
        "a": False,
        "a/b": False,
        "a/b/caf\udce9": True,
        "a/file": True,
        "a/pipe": False,
        "link": False,
    }


def test_entries_can_be_removed_while_they_are_listed(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / str(number)).touch()
    for name, _ in files.below(tmp_path):
        files.remove(tmp_path, name)
    assert listed(tmp_path) == {}


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listed(tmp_path / "missing")


def test_trees_are_listed_up_to_the_path_limit(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(3000):
            os.mkdir("d", dir_fd=directory)
            inner = os.open("d", os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = inner
        deepest = max(len(name) for name, _ in files.below(tmp_path))
        assert 4000 < deepest < 4100
    finally:
        os.close(directory)
        delete_tree(tmp_path / "d")
    assert listed(tmp_path) == {}
