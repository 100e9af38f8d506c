"""What a job did in the submodules of its worktree, which no commit of the worktree contains."""

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
from workspace.git.trees import apply_tree_diff, tree_of, tree_of_files
from workspace.inspection.submodule_repository import (
    Refs,
    Unreadable,
    git_dir_of,
    git_dirs_below,
    modules_of,
    read_refs,
)
from workspace.inspection.submodule_rescue import spared_names
from workspace.mirrors.mirrors import Mirrors
from workspace.worktree.worktree import SubmoduleSnapshot, Worktree

# Every repository knows it without having it.
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_MAX_NAMED = 5


@dataclass(frozen=True)
class _Submodule:
    """One that is checked out, or whose git directory is left: then it has no `files`."""

    path: str
    git_dir: Path
    files: Path | None
    refs: Refs
    worktree: Worktree


@dataclass(frozen=True)
class _Found:
    """What is at a path: `submodule` is None if it cannot be read, `state` if it has no files."""

    path: str
    submodule: _Submodule | None
    state: SubmoduleSnapshot | None
    has_work: bool


class Submodules:
    """Compares submodules with what they were made as, and with what their remotes have.

    Their configuration and hooks are not used: git works on them from a private repository. What
    cannot be read counts as work, so that nothing is lost.

    Args:
        mirrors: the repositories.
    """

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        self._git = mirrors.git

    async def snapshots(self, worktree: Worktree) -> tuple[SubmoduleSnapshot, ...]:
        """Describe the submodules of a worktree in which nobody has worked yet."""
        if not (worktree.path / ".gitmodules").is_file():
            return ()
        found = await self._checked_out(worktree)
        return tuple(one.state for one in found if one.state is not None)

    async def paths_with_work(self, worktree: Worktree) -> list[str]:
        """Return the paths of the submodules that have what their remotes have not.

        That are changed files, ignored ones aside, and commits of HEAD, a local branch or the
        stash. A git directory without files is named as git names it.
        """
        return sorted({one.path for one in await self._all(worktree) if one.has_work})

    async def refuse_work(self, worktree: Worktree, links: Mapping[str, str]) -> None:
        """Let a worktree pass whose submodules are all as their remotes have them.

        Args:
            worktree: in which they are.
            links: the commits of other repositories in its index, by path.

        Raises:
            JobFailure: GIT_FAILED, naming some of the others.
        """
        if not links and not worktree.submodules and not files.names(worktree.git_dir, "modules"):
            return
        found = await self._all(worktree)
        names = {one.path for one in found if one.has_work}
        names |= {*await self._unknown_links(worktree, found, links)}
        if names:
            raise JobFailure(
                FailureCode.GIT_FAILED,
                "Nothing was published, because submodules have changes or commits that their own "
                "repositories do not have, or cannot be compared with them: "
                f"{spared_names(sorted(names)[:_MAX_NAMED])}. Changes of a submodule "
                "have to be made in its own repository. Push them there, or post a job for it.",
            )

    async def _all(self, worktree: Worktree) -> list[_Found]:
        found = await self._checked_out(worktree)
        return [*found, *await self._left_behind(worktree, found)]

    async def _checked_out(self, worktree: Worktree) -> list[_Found]:
        """Look at every submodule that the index or the record knows, and at those in them."""
        made = {one.path: one for one in worktree.submodules}
        known = frozenset(one.head for one in worktree.submodules if one.head is not None)
        pending = {*made, *await self._links(worktree)}
        found: dict[str, _Found] = {}
        while pending:
            path = pending.pop()
            files = files_at(worktree.path, path)
            if path in found or files is None:
                continue
            with _as_work(found, path):
                git_dir = git_dir_of(worktree, files)
                if git_dir is not None:
                    submodule = _Submodule(path, git_dir, files, read_refs(git_dir), worktree)
                    found[path], inner = await self._look(submodule, made.get(path), known)
                    pending |= {f"{path}/{name}" for name in inner}
        return list(found.values())

    async def _links(self, worktree: Worktree) -> Mapping[str, str]:
        try:
            return await gitlinks(self._git, worktree.history)
        except GitError:
            # Claude may have damaged the index; what the record knows is still found.
            return {}

    async def _look(
        self, submodule: _Submodule, made: SubmoduleSnapshot | None, known: frozenset[str]
    ) -> tuple[_Found, Iterable[str]]:
        """Return what there is in a submodule, and the paths of the submodules in it."""
        index, head = submodule.git_dir / "index", submodule.refs.head
        async with self._opened(submodule) as place:
            tree = await tree_of_files(self._git, place, index, head or _EMPTY_TREE)
            has_work = await self._has_commits(place, submodule.refs, known)
            has_work = has_work or await self._has_changes(place, head, tree, made)
            inner = await gitlinks_of(self._git, place, tree)
        state = SubmoduleSnapshot(submodule.path, head, tree)
        return _Found(submodule.path, submodule, state, has_work), inner

    async def _left_behind(self, worktree: Worktree, found: Iterable[_Found]) -> list[_Found]:
        """Look for commits in the git directories of submodules that are not checked out."""
        modules = modules_of(worktree)
        known = frozenset(one.head for one in worktree.submodules if one.head is not None)
        seen = {one.submodule.git_dir.resolve() for one in found if one.submodule is not None}
        left: dict[str, _Found] = {}
        for git_dir in await asyncio.to_thread(lambda: list(git_dirs_below(modules))):
            name = str(git_dir.relative_to(modules.resolve()))
            if git_dir in seen:
                continue
            with _as_work(left, name):
                submodule = _Submodule(name, git_dir, None, read_refs(git_dir), worktree)
                async with self._opened(submodule) as place:
                    has_work = await self._has_commits(place, submodule.refs, known)
                left[name] = _Found(name, submodule, None, has_work)
        return list(left.values())

    async def _unknown_links(
        self, worktree: Worktree, found: Iterable[_Found], links: Mapping[str, str]
    ) -> list[str]:
        """Return where the worktree links to a commit that the submodule does not have.

        Work that is taken up may do so: its commit was on the machine where it was done.
        """
        return [
            one.path
            for one in found
            if one.submodule is not None
            and one.submodule.refs.head != (link := links.get(one.path))
            and link is not None
            and not await self._is_known(worktree, one.submodule, link)
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
        """Make a private repository with the objects, HEAD and files of a submodule."""
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
        lines = (*own, *(f"^{sha}" for sha in refs.remote))
        data = "".join(f"{line}\n" for line in lines).encode()
        found = await self._git.run("rev-list", "--max-count=1", "--stdin", at=place, stdin=data)
        return bool(found)

    async def _has_changes(
        self, place: GitLocation, head: str | None, tree: str, made: SubmoduleSnapshot | None
    ) -> bool:
        clean = _EMPTY_TREE if head is None else await tree_of(self._git, place, head)
        if tree == clean or made is None:
            return tree != clean
        return await apply_tree_diff(self._git, place, clean, made.tree, tree) != clean


@contextlib.contextmanager
def _as_work(found: dict[str, _Found], path: str) -> Iterator[None]:
    """Count what cannot be read as work, unless there is only no space to read it."""
    try:
        yield
    except (Unreadable, GitError, OSError) as error:
        if is_no_space(error):
            raise
        found[path] = _Found(path, None, None, has_work=True)
