"""Git on this host: prepare worktrees, publish branches, clean up, fetch mirrors."""

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

MAX_NAMED_PATHS = 5
_REFUSED_WITHOUT_TOKEN = {FailureCode.GITHUB_AUTHENTICATION, FailureCode.REPOSITORY_NOT_FOUND}


@dataclass(frozen=True, slots=True)
class PrepareInput:
    """The lease of the job that needs a worktree."""

    lease: LeaseKey


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """A worktree that is ready.

    `base_sha` is the commit that the job's work is compared with. `existed`: an earlier lease
    made the worktree, so work done in it is still there.
    """

    base_sha: str
    continues_branch: bool
    existed: bool


@dataclass(frozen=True, slots=True)
class PublishInput:
    """The lease of the job whose worktree is published."""

    lease: LeaseKey


@dataclass(frozen=True, slots=True)
class PublishResult:
    """The head of the remote branch, or None if there was nothing to publish."""

    sha: str | None


@dataclass(frozen=True, slots=True)
class VerifyUnchangedInput:
    """The lease of a task job."""

    lease: LeaseKey


@dataclass(frozen=True, slots=True)
class CleanUpInput:
    """A job that has ended. It needs no lease, and the host may have been restarted since."""

    job_id: str


@dataclass(frozen=True, slots=True)
class FetchMirrorInput:
    """A repository by its id."""

    repository_id: str


@dataclass(frozen=True, slots=True)
class FetchMirrorResult:
    """The result for one repository: `path` on success, otherwise `error`."""

    repository: str
    success: bool
    path: str | None
    error: str | None


class WorkspaceActivities:
    """Everything that jobs do with git on this host."""

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
    async def prepare(self, request: PrepareInput) -> PrepareResult:
        """Fetch the repository and create the job's worktree, or find the existing one. Idempotent.

        Raises:
            JobFailure: the repository cannot be fetched, the branch cannot be used, or this host
                cannot isolate the job.
            LeaseLost: this process no longer holds the lease, or the job was stopped.
        """
        key = request.lease
        lease = self._leases.require(key)
        await self._sandbox.require()
        job, repository = await job_state_and_repository(self._store, key.job_id)
        await self._progress.notify(
            job.id, f"Preparing {repository.full_name}.", once=("prepare", key.number)
        )
        existing = await self._find(job, repository)
        worktree = existing if existing else await lease.run(self._create_worktree(job, repository))
        await self._progress.update(
            key, {"worktree_path": str(worktree.path), "base_sha": worktree.base_sha}
        )
        for notice in worktree.notices:
            await self._progress.notify(job.id, notice, once=("notice", notice))
        return PrepareResult(worktree.base_sha, worktree.continued, existed=existing is not None)

    @activity.defn
    async def publish(self, request: PublishInput) -> PublishResult:
        """Commit remaining changes in the worktree and push the job's branch. Idempotent.

        Commits made by Claude are pushed too. The remote's head is checked afterwards, so success
        means that the commit is there.

        Raises:
            JobFailure: the push was refused, or someone else pushed to the branch.
            LeaseLost: this process no longer holds the lease.
        """
        key = request.lease
        lease = self._leases.require(key)
        job, repository = await job_and_repository(self._store, key.job_id)
        await self._progress.enter(key, Phase.PUBLISHING)
        # A push that has begun is finished even if the job is cancelled. Otherwise it would be
        # unknown whether there is something to withdraw.
        return await run_to_completion(lease.finish(self._commit_and_push(key, job, repository)))

    @activity.defn
    async def verify_unchanged(self, request: VerifyUnchangedInput) -> None:
        """Check that a task job has not changed its worktree.

        Raises:
            JobFailure: TASK_CHANGED_FILES, with the first changed paths.
        """
        job, repository = await job_state_and_repository(self._store, request.lease.job_id)
        worktree = await self._find(job, repository)
        changed = [] if worktree is None else await self._worktrees.changed_paths(worktree)
        if changed:
            code = FailureCode.TASK_CHANGED_FILES
            raise JobFailure(
                code, f"{code.sentence} Changed: {', '.join(changed[:MAX_NAMED_PATHS])}."
            )

    @activity.defn
    async def clean_up(self, request: CleanUpInput) -> None:
        """Salvage undelivered work, then remove the worktree. Idempotent.

        The work is kept under the salvage ref and in the store.
        """
        job_id = request.job_id
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
    async def fetch_mirror(self, request: FetchMirrorInput) -> FetchMirrorResult:
        """Clone or fetch one repository on this host. Idempotent; a failure is in the result.

        Raises:
            NotFound: the repository is not in the store.
        """
        repository = await self._store.get_repository(request.repository_id)
        if repository is None:
            raise NotFound("The repository does not exist.")
        owner, name = repository.owner_name, repository.repo_name
        try:
            await self._fetch(repository)
        except JobFailure as failure:
            return FetchMirrorResult(repository.full_name, False, None, failure.message)
        path = str(self._mirrors.path(owner, name))
        return FetchMirrorResult(repository.full_name, True, path, None)

    async def _fetch(self, repository: Repository) -> Mirror:
        """Fetch the mirror. Without a token, refusals are reported as a missing token."""
        try:
            return await self._mirrors.fetch(repository.owner_name, repository.repo_name)
        except JobFailure as failure:
            if not self._has_token and failure.code in _REFUSED_WITHOUT_TOKEN:
                raise JobFailure(FailureCode.GITHUB_TOKEN_MISSING) from failure
            raise

    async def _find(self, job: JobState, repository: Repository) -> Worktree | None:
        return await self._worktrees.find(repository.owner_name, repository.repo_name, job.id)

    async def _create_worktree(self, job: JobState, repository: Repository) -> Worktree:
        owner, name = repository.owner_name, repository.repo_name
        if job.job_type is JobType.CODE:
            self._require_publishable(job, repository)
        mirror = await self._fetch(repository)
        repositories = await self._repositories_of_client(job)
        if job.retry_from is RetryFrom.PUBLISH and not await self._has_pushed(job, mirror):
            return await self._restore_kept_work(job, repository, repositories, mirror)
        start = _earlier_start(job) or await self._start(job, repository, mirror)
        if job.job_type is JobType.TASK:
            return await self._worktrees.create_detached(
                owner, name, job.id, start, repositories, mirror
            )
        return await self._worktrees.create_for_branch(
            owner, name, job.id, job.branch_name, start, repositories, mirror
        )

    async def _repositories_of_client(self, job: JobState) -> list[str]:
        """Return the repositories that the job's client has registered, as `owner/name`."""
        return [
            repository.full_name
            for repository in await self._store.list_repositories()
            if repository.client_id == job.client_id
        ]

    async def _has_pushed(self, job: JobState, mirror: Mirror) -> bool:
        """Return whether the job has pushed its branch, from a host that was lost after that."""
        pushed = (await self._mirrors.branches(mirror)).get(job.branch_name)
        return pushed is not None and pushed == job.head_sha

    async def _restore_kept_work(
        self, job: JobState, repository: Repository, repositories: Collection[str], mirror: Mirror
    ) -> Worktree:
        """Create a worktree from the kept work of the job that is retried."""
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
            # Checked last: a host that was renamed has the work, although the row names another.
            if failure.code is FailureCode.KEPT_WORK_GONE and self._keeping.is_elsewhere(kept):
                raise _elsewhere(kept) from failure
            raise

    def _require_publishable(self, job: JobState, repository: Repository) -> None:
        """Fail before Claude works if its work could not be published afterwards."""
        if not self._has_token:
            raise JobFailure(FailureCode.GITHUB_TOKEN_MISSING)
        if job.branch_name in {repository.default_branch, base_branch(job, repository)}:
            raise JobFailure(
                FailureCode.BRANCH_CONFLICT,
                f"Pull requests are merged into {job.branch_name}, so it cannot be a job's branch. "
                "Use another branch name.",
            )

    async def _start(self, job: JobState, repository: Repository, mirror: Mirror) -> str:
        """Return the commit or base branch from which the worktree starts.

        It is the remote head of the job's own branch, or of the branch of the nearest job that it
        retries. A head that one of these jobs has pushed does not count: that work is done again.
        """
        chain = [retried async for retried in retry_chain(self._store, job)]
        pushed = {retried.head_sha for retried in chain}
        branches = await self._mirrors.branches(mirror)
        heads = (branches.get(retried.branch_name) for retried in chain)
        starts = (head for head in heads if head is not None and head not in pushed)
        return next(starts, base_branch(job, repository))

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
        # On an existing branch, commits that change no file, such as a merge, are published too.
        counts_commits = worktree.continued or job.retry_from is RetryFrom.PUBLISH
        if head.files_changed > 0 or (counts_commits and head.commits_ahead > 0):
            await self._progress.update(
                key, {"head_sha": head.sha, "files_changed": head.files_changed}
            )
        elif head.sha != job.head_sha:
            await self._progress.update(key, {"files_changed": 0})
            await self._report_left_out_work(job, worktree, head.sha)
            return PublishResult(None)
        # If head.sha is job.head_sha, a host pushed it and was lost before it could report that.
        await self._publishing.push(
            owner, name, head.sha, job.branch_name, worktree.expected_remote
        )
        await self._report_left_out_work(job, worktree, head.sha)
        return PublishResult(head.sha)

    async def _report_left_out_work(self, job: Job, worktree: Worktree, sha: str) -> None:
        left = await self._publishing.left_out(worktree, sha)
        if left:
            names = ", ".join(f"{name} at {head[:12]}" for name, head in sorted(left.items()))
            await self._progress.notify(
                job.id,
                f"Claude left commits on other branches. Only the branch that it had checked out "
                f"is published. Not published: {names}. They are kept in the repository's mirror "
                f"on this host, under {SALVAGE}{job.id}.",
                once=("left out", names),
            )


def _earlier_start(job: JobState) -> str | None:
    """Return the commit from which an earlier lease started, if the job must start there again.

    A task job reads one commit for its whole conversation. A retry may have started from the branch
    of another job, which may have been moved or deleted since. Other code jobs start again from the
    newest commit of their base branch.
    """
    must_start_there = job.job_type is JobType.TASK or job.retry_of is not None
    return job.base_sha if must_start_there else None


def _elsewhere(work: KeptWork) -> JobFailure:
    return JobFailure(
        FailureCode.KEPT_WORK_ELSEWHERE,
        f"The work of job {work.job_id} is too large for the store, so it is only on the host "
        f"{work.host}, which did not take the job. When {work.host} is back, retry the job with "
        "`from` set to `publish`.",
    )
