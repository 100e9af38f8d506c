"""Work of a job in submodules, which no commit of its worktree can contain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from domain.errors import JobFailure
from domain.failures import FailureCode
from sandbox import files
from sandbox.containment import Reach
from workspace.git.errors import is_no_space
from workspace.git.gitlinks import files_at, gitlinks, gitlinks_of
from workspace.git.runner import GitError, GitLocation
from workspace.git.scratch_repository import scratch_repository
from workspace.git.text import MAX_NAMED_PATHS, join_paths
from workspace.git.trees import apply_tree_diff, tree_of, tree_of_files
from workspace.inspection.submodule_repository import (
    Refs,
    Unreadable,
    git_dir_of,
    git_dirs_below,
    modules_of,
    read_refs,
)
from workspace.mirrors.mirrors import Mirrors
from workspace.worktree.worktree import SubmoduleSnapshot, Worktree

# Git knows this tree in every repository, without an object for it.
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@dataclass(frozen=True)
class _Submodule:
    """A git directory of a submodule, and its `files` if it is checked out."""

    path: str
    git_dir: Path
    files: Path | None
    refs: Refs
    worktree: Worktree


@dataclass(frozen=True)
class _Inspection:
    """The result for one path.

    Args:
        path: from the top of the worktree.
        submodule: None if it cannot be read.
        snapshot: None if it has no files.
        has_work: whether it has changes or commits that its remote does not have.
    """

    path: str
    submodule: _Submodule | None
    snapshot: SubmoduleSnapshot | None
    has_work: bool


class Submodules:
    """Compares submodules with their first checkout and with their remotes.

    Git never uses their configuration and hooks: it reads them from a private repository. A
    submodule that cannot be read counts as work, so that nothing is lost.

    Args:
        mirrors: the repositories.
    """

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        self._git = mirrors.git

    async def snapshots(self, worktree: Worktree) -> tuple[SubmoduleSnapshot, ...]:
        """Return the state of the submodules in a fresh worktree."""
        if not (worktree.path / ".gitmodules").is_file():
            return ()
        inspections = await self._checked_out(worktree)
        return tuple(each.snapshot for each in inspections if each.snapshot is not None)

    async def paths_with_work(self, worktree: Worktree) -> list[str]:
        """Return the paths of the submodules with work that their remotes do not have.

        Work is a changed file that is not ignored, or a commit of HEAD, a local branch or the
        stash. For a git directory without files, the path is git's name of the submodule.
        """
        return sorted({each.path for each in await self._all(worktree) if each.has_work})

    async def refuse_work(self, worktree: Worktree, links: Mapping[str, str]) -> None:
        """Refuse a worktree with work in its submodules.

        Args:
            worktree: the job's.
            links: the submodule commits in its index, by path.

        Raises:
            JobFailure: GIT_FAILED, with the first paths.
        """
        if not links and not worktree.submodules and not files.names(worktree.git_dir, "modules"):
            return
        inspections = await self._all(worktree)
        paths = {each.path for each in inspections if each.has_work}
        paths |= {*await self._unknown_links(worktree, inspections, links)}
        if paths:
            raise JobFailure(
                FailureCode.GIT_FAILED,
                "Nothing was published: these submodules contain unpushed changes or commits, or "
                f"could not be checked: {join_paths(paths, MAX_NAMED_PATHS)}. Make submodule "
                "changes in the submodule's own repository: push them there, or post a job for it.",
            )

    async def _all(self, worktree: Worktree) -> list[_Inspection]:
        checked_out = await self._checked_out(worktree)
        return [*checked_out, *await self._not_checked_out(worktree, checked_out)]

    async def _checked_out(self, worktree: Worktree) -> list[_Inspection]:
        """Inspect the submodules in the index and the record, and the submodules in them."""
        snapshots = {each.path: each for each in worktree.submodules}
        pending = {*snapshots, *await self._links(worktree)}
        inspections: dict[str, _Inspection] = {}
        while pending:
            path = pending.pop()
            files = files_at(worktree.path, path)
            if path in inspections or files is None:
                continue
            with _unreadable_counts_as_work(inspections, path):
                git_dir = git_dir_of(worktree, files)
                if git_dir is not None:
                    submodule = _Submodule(path, git_dir, files, read_refs(git_dir), worktree)
                    inspections[path], nested = await self._inspect(submodule, snapshots.get(path))
                    pending |= {f"{path}/{name}" for name in nested}
        return list(inspections.values())

    async def _links(self, worktree: Worktree) -> Mapping[str, str]:
        try:
            return await gitlinks(self._git, worktree.history)
        except GitError:
            # Claude may have damaged the index. The submodules in the record are still inspected.
            return {}

    async def _inspect(
        self, submodule: _Submodule, made: SubmoduleSnapshot | None
    ) -> tuple[_Inspection, Iterable[str]]:
        """Inspect one submodule, and return the paths of its own submodules too."""
        known = _initial_heads(submodule.worktree)
        index, head = submodule.git_dir / "index", submodule.refs.head
        async with self._opened(submodule) as place:
            tree = await tree_of_files(self._git, place, index, head or _EMPTY_TREE)
            has_work = await self._has_commits(place, submodule.refs, known)
            has_work = has_work or await self._has_changes(place, head, tree, made)
            nested = await gitlinks_of(self._git, place, tree)
        snapshot = SubmoduleSnapshot(submodule.path, head, tree)
        return _Inspection(submodule.path, submodule, snapshot, has_work), nested

    async def _not_checked_out(
        self, worktree: Worktree, checked_out: Iterable[_Inspection]
    ) -> list[_Inspection]:
        """Look for commits in the git directories of submodules that are not checked out."""
        modules, known = modules_of(worktree), _initial_heads(worktree)
        seen = {each.submodule.git_dir.resolve() for each in checked_out if each.submodule}
        inspections: dict[str, _Inspection] = {}
        for git_dir in await asyncio.to_thread(lambda: list(git_dirs_below(modules))):
            name = str(git_dir.relative_to(modules.resolve()))
            if git_dir in seen:
                continue
            with _unreadable_counts_as_work(inspections, name):
                submodule = _Submodule(name, git_dir, None, read_refs(git_dir), worktree)
                async with self._opened(submodule) as place:
                    has_work = await self._has_commits(place, submodule.refs, known)
                inspections[name] = _Inspection(name, submodule, None, has_work)
        return list(inspections.values())

    async def _unknown_links(
        self, worktree: Worktree, inspections: Iterable[_Inspection], links: Mapping[str, str]
    ) -> list[str]:
        """Return the paths whose linked commit the submodule does not have.

        Work restored from another host may have such a link: the commit is only on that host.
        """
        return [
            each.path
            for each in inspections
            if each.submodule is not None
            and each.submodule.refs.head != (link := links.get(each.path))
            and link is not None
            and not await self._is_known(worktree, each.submodule, link)
        ]

    async def _is_known(self, worktree: Worktree, submodule: _Submodule, link: str) -> bool:
        base = f"{worktree.base_sha}:{submodule.path}"
        arguments = ("rev-parse", "--quiet", "--verify", "--end-of-options", base)
        before = await self._git.run(*arguments, at=worktree.history, accept=(0, 1, 128))
        if before.strip() == link:
            return True
        refs = replace(submodule.refs, own=frozenset({link}))
        try:
            async with self._opened(submodule) as place:
                return not await self._has_commits(place, refs, frozenset())
        except GitError:
            return False

    @contextlib.asynccontextmanager
    async def _opened(self, submodule: _Submodule) -> AsyncIterator[GitLocation]:
        """Yield a private repository with the objects, HEAD and files of a submodule."""
        objects, refs = submodule.git_dir / "objects", submodule.refs
        async with scratch_repository(self._mirrors.scratch, objects, {}) as place:
            if refs.head is not None:
                (place.git_dir / "HEAD").write_text(f"{refs.head}\n")
            if refs.shallow:
                (place.git_dir / "shallow").write_text("".join(f"{sha}\n" for sha in refs.shallow))
            reach = submodule.worktree.reach
            writable = (place.git_dir, *reach.writable)
            yield replace(place, work_tree=submodule.files, reach=Reach(writable, reach.readable))

    async def _has_commits(self, place: GitLocation, refs: Refs, known: frozenset[str]) -> bool:
        own = refs.own - refs.remote - known
        if not own:
            return False
        rows = (*own, *(f"^{sha}" for sha in refs.remote))
        data = "".join(f"{row}\n" for row in rows).encode()
        output = await self._git.run("rev-list", "--max-count=1", "--stdin", at=place, stdin=data)
        return bool(output)

    async def _has_changes(
        self, place: GitLocation, head: str | None, tree: str, made: SubmoduleSnapshot | None
    ) -> bool:
        clean = _EMPTY_TREE if head is None else await tree_of(self._git, place, head)
        if tree == clean or made is None:
            return tree != clean
        return await apply_tree_diff(self._git, place, clean, made.tree, tree) != clean


def _initial_heads(worktree: Worktree) -> frozenset[str]:
    return frozenset(each.head for each in worktree.submodules if each.head is not None)


@contextlib.contextmanager
def _unreadable_counts_as_work(inspections: dict[str, _Inspection], path: str) -> Iterator[None]:
    try:
        yield
    except (Unreadable, GitError, OSError) as error:
        # A full disk says nothing about the submodule.
        if is_no_space(error):
            raise
        inspections[path] = _Inspection(path, None, None, has_work=True)
