"""Worktrees and branches on this machine: prepare, publish, clean up, keep mirrors fresh."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from temporalio import activity

from domain.commit_text import commit_message
from domain.errors import JobFailure, NotFound
from domain.failures import FailureCode
from domain.job_details import KeptWork
from domain.jobs import Job, JobState, JobStatus, JobType, Phase, RetryFrom
from domain.repositories import Repository, base_branch
from host.job_lookup import job_and_repository, job_state_and_repository
from host.job_progress import Progress
from host.salvage_records import SalvageRecords
from host.shielding import run_to_completion
from host.slots.leases import LeaseKey, Leases
from sandbox.modes import Sandbox
from store.protocol import Store
from store.retry_chain import retry_chain
from workspace.author import Identity
from workspace.lifecycle.removal import Removal
from workspace.lifecycle.worktrees import Worktrees
from workspace.mirrors.mirrors import Mirror
from workspace.publishing import Publishing
from workspace.salvage.refs import SALVAGE
from workspace.worktree.worktree import Worktree

_OPENED_BY_A_TOKEN = {FailureCode.GITHUB_AUTHENTICATION, FailureCode.REPOSITORY_NOT_FOUND}


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """A worktree that is ready. `base_sha` is the commit that the job's work is compared with.

    `was_there` tells that an earlier lease made it, so that work done in it is still there.
    """

    base_sha: str
    continues_branch: bool
    was_there: bool


@dataclass(frozen=True, slots=True)
class PublishInput:
    """What to publish: the worktree of the lease, as it stands."""

    key: LeaseKey


@dataclass(frozen=True, slots=True)
class PublishResult:
    """`sha` is at the remote branch now; None when there was verifiably nothing to publish."""

    sha: str | None


@dataclass(frozen=True, slots=True)
class MirrorResult:
    """What became of fetching one repository on this machine."""

    repository: str
    success: bool
    path: str | None
    error: str | None


class WorkspaceActivities:
    """Everything jobs do with git on this machine."""

    def __init__(
        self,
        store: Store,
        leases: Leases,
        worktrees: Worktrees,
        publishing: Publishing,
        removal: Removal,
        keeping: SalvageRecords,
        identity: Identity,
        sandbox: Sandbox,
        *,
        has_token: bool,
    ) -> None:
        self._store = store
        self._leases = leases
        self._mirrors = worktrees.mirrors
        self._worktrees = worktrees
        self._publishing = publishing
        self._removal = removal
        self._keeping = keeping
        self._identity = identity
        self._sandbox = sandbox
        self._has_token = has_token
        self._progress = Progress(store)

    @activity.defn
    async def prepare(self, key: LeaseKey) -> PrepareResult:
        """Fetch the repository and make the job's worktree, or find it as an earlier lease left it.

        Raises:
            JobFailure: the repository cannot be fetched, the branch cannot be used, or this host
                cannot isolate the job.
        """
        lease = self._leases.require(key)
        await self._sandbox.require()
        job, repository = await job_state_and_repository(self._store, key.job_id)
        await self._progress.notify(
            job.id, f"Preparing {repository.full_name}.", once=("prepare", key.number)
        )
        found = await self._find(job, repository)
        worktree = found if found else await lease.run(self._make_worktree(job, repository))
        await self._progress.update(
            key, {"worktree_path": str(worktree.path), "base_sha": worktree.base_sha}
        )
        for notice in worktree.notices:
            await self._progress.notify(job.id, notice, once=("notice", notice))
        return PrepareResult(worktree.base_sha, worktree.continued, was_there=found is not None)

    @activity.defn
    async def publish(self, request: PublishInput) -> PublishResult:
        """Commit what is left in the worktree and push the job's branch. Repeatable.

        What Claude committed itself is pushed too. The remote is asked for its head afterwards, so
        success means that the commit is there.

        Raises:
            JobFailure: the push was refused, or the branch moved meanwhile.
        """
        key = request.key
        lease = self._leases.require(key)
        job, repository = await job_and_repository(self._store, key.job_id)
        await self._progress.enter(key, Phase.PUBLISHING)
        # Once begun, a push is finished even if the job is cancelled meanwhile: only then is it
        # known what there is to take back.
        return await run_to_completion(lease.finish(self._commit_and_push(key, job, repository)))

    @activity.defn
    async def verify_unchanged(self, key: LeaseKey) -> None:
        """Check that a task job's worktree is as it was made.

        Raises:
            JobFailure: `task_changed_files`, naming some of them.
        """
        _, repository = await job_state_and_repository(self._store, key.job_id)
        worktree = await self._worktrees.find(
            repository.owner_name, repository.repo_name, key.job_id
        )
        changed = [] if worktree is None else await self._worktrees.changed_paths(worktree)
        if changed:
            code = FailureCode.TASK_CHANGED_FILES
            raise JobFailure(code, f"{code.sentence} Changed: {', '.join(changed[:5])}.")

    @activity.defn
    async def clean_up(self, job_id: str) -> None:
        """Keep undelivered work under the salvage ref and in the store, then remove the worktree.

        Repeatable.

        Needs no lease: by now the job has a final status.
        """
        details = await self._store.get_job_state(job_id)
        if details is None or details.repository is None:
            return
        repository = details.repository
        await self._removal.remove(
            repository.owner_name,
            repository.repo_name,
            job_id,
            self._keeping.record,
            self._keeping.notify,
            include_pushed=details.job.status is not JobStatus.COMPLETED,
        )
        await self._progress.cleaned_up(job_id)

    @activity.defn
    async def fetch_mirror(self, repository_id: str) -> MirrorResult:
        """Clone or fetch one repository on this machine. Repeatable; failures are in the result."""
        repository = await self._store.get_repository(repository_id)
        if repository is None:
            raise NotFound("The repository does not exist.")
        return await self._mirror_result(repository)

    async def _mirror_result(self, repository: Repository) -> MirrorResult:
        owner, name = repository.owner_name, repository.repo_name
        try:
            await self._fetch(repository)
        except JobFailure as failure:
            return MirrorResult(repository.full_name, False, None, failure.message)
        path = str(self._mirrors.path(owner, name))
        return MirrorResult(repository.full_name, True, path, None)

    async def _fetch(self, repository: Repository) -> Mirror:
        """Fetch the mirror; without a token, what a token would open is reported as its lack."""
        try:
            return await self._mirrors.fetch(repository.owner_name, repository.repo_name)
        except JobFailure as failure:
            if not self._has_token and failure.code in _OPENED_BY_A_TOKEN:
                raise JobFailure(FailureCode.GITHUB_TOKEN_MISSING) from failure
            raise

    async def _find(self, job: JobState, repository: Repository) -> Worktree | None:
        return await self._worktrees.find(repository.owner_name, repository.repo_name, job.id)

    async def _make_worktree(self, job: JobState, repository: Repository) -> Worktree:
        owner, name = repository.owner_name, repository.repo_name
        if job.job_type is JobType.CODE:
            self._require_publishable(job, repository)
        mirror = await self._fetch(repository)
        repositories = await self._of_the_same_client(job)
        if job.retry_from is RetryFrom.PUBLISH and not await self._has_pushed(job, mirror):
            return await self._take_up_kept(job, repository, repositories, mirror)
        start = _earlier_start(job) or await self._start(job, repository, mirror)
        if job.job_type is JobType.TASK:
            return await self._worktrees.create_detached(
                owner, name, job.id, start, repositories, mirror
            )
        return await self._worktrees.create_for_branch(
            owner, name, job.id, job.branch_name, start, repositories, mirror
        )

    async def _of_the_same_client(self, job: JobState) -> list[str]:
        """Return the repositories that the job's client has registered, as `owner/name`."""
        registered = await self._store.list_repositories()
        return [each.full_name for each in registered if each.client_id == job.client_id]

    async def _has_pushed(self, job: JobState, mirror: Mirror) -> bool:
        """Tell whether the job has pushed its branch, on a machine that was lost then."""
        pushed = (await self._mirrors.branches(mirror)).get(job.branch_name)
        return pushed is not None and pushed == job.head_sha

    async def _take_up_kept(
        self, job: JobState, repository: Repository, repositories: Collection[str], mirror: Mirror
    ) -> Worktree:
        """Make the worktree of the work that the job's original left."""
        kept = await self._store.kept_work(job.retry_of or "")
        if kept is None:
            raise JobFailure(FailureCode.KEPT_WORK_GONE)
        try:
            return await self._worktrees.create_from_salvage(
                repository.owner_name,
                repository.repo_name,
                job.id,
                job.branch_name,
                kept.job_id,
                kept.base_sha,
                kept.head_sha,
                kept.patch,
                repositories,
                mirror,
            )
        except JobFailure as failure:
            # Only now, because a machine that was renamed has it although the row names another.
            if failure.code is FailureCode.KEPT_WORK_GONE and self._keeping.is_elsewhere(kept):
                raise _elsewhere(kept) from failure
            raise

    def _require_publishable(self, job: JobState, repository: Repository) -> None:
        """Refuse before Claude works what could not be published afterwards."""
        if not self._has_token:
            raise JobFailure(FailureCode.GITHUB_TOKEN_MISSING)
        if job.branch_name in {repository.default_branch, base_branch(job, repository)}:
            raise JobFailure(
                FailureCode.BRANCH_CONFLICT,
                f"{job.branch_name} is a branch that pull requests are merged into. Use another "
                "branch name.",
            )

    async def _start(self, job: JobState, repository: Repository, mirror: Mirror) -> str:
        """Return the commit that a task reads or a new branch starts at, or its base branch.

        It is the head of the job's own branch where the remote has it, else of that of the nearest
        job which it retries; but not what one of these jobs has pushed, which is to be done anew.
        """
        jobs = [each async for each in retry_chain(self._store, job)]
        pushed = {each.head_sha for each in jobs}
        branches = await self._mirrors.branches(mirror)
        heads = [branches.get(each.branch_name) for each in jobs]
        found = (head for head in heads if head is not None and head not in pushed)
        return next(found, base_branch(job, repository))

    async def _commit_and_push(
        self, key: LeaseKey, job: Job, repository: Repository
    ) -> PublishResult:
        owner, name = repository.owner_name, repository.repo_name
        worktree = await self._worktrees.find(owner, name, job.id)
        if worktree is None:
            raise JobFailure(
                FailureCode.GIT_FAILED,
                "The job's worktree is gone, so nothing was published. Retry the job.",
            )
        await self._publishing.commit_all(worktree, commit_message(job), self._identity)
        head = await self._publishing.head(worktree)
        # Commits that change no file, such as a merge, are part of what a branch says.
        is_telling = worktree.continued or job.retry_from is RetryFrom.PUBLISH
        if head.files_changed > 0 or (is_telling and head.commits_ahead > 0):
            await self._progress.update(
                key, {"head_sha": head.sha, "files_changed": head.files_changed}
            )
        elif head.sha != job.head_sha:
            await self._progress.update(key, {"files_changed": 0})
            await self._say_what_is_left_out(job, worktree, head.sha)
            return PublishResult(None)
        # Else a machine that was lost had pushed it, before it could say so.
        await self._publishing.push(
            owner, name, head.sha, job.branch_name, worktree.expected_remote
        )
        await self._say_what_is_left_out(job, worktree, head.sha)
        return PublishResult(head.sha)

    async def _say_what_is_left_out(self, job: Job, worktree: Worktree, sha: str) -> None:
        left = await self._publishing.left_out(worktree, sha)
        if left:
            names = ", ".join(f"{name} at {head[:12]}" for name, head in sorted(left.items()))
            await self._progress.notify(
                job.id,
                f"Claude left more than one line of work, and only what it had checked out counts. "
                f"Not in it: {names}. That is kept in the repository's mirror on this machine, "
                f"under {SALVAGE}{job.id}.",
                once=("left out", names),
            )


def _earlier_start(job: JobState) -> str | None:
    """Return the commit at which an earlier lease began, unless the job is to begin anew.

    A code job that is no retry begins anew at its base, which is there as long as the repository
    is. The branch of another job may have been deleted or moved since.
    """
    is_held = job.job_type is JobType.TASK or job.retry_of is not None
    return job.base_sha if is_held else None


def _elsewhere(work: KeptWork) -> JobFailure:
    return JobFailure(
        FailureCode.KEPT_WORK_ELSEWHERE,
        f"The work of job {work.job_id} is too long to be kept in the store, so it is only on the "
        f"machine {work.host}, which did not take the job. Retry the job with `from` set to "
        f"publish when {work.host} is back.",
    )
