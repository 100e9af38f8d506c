"""Pull requests: opened once, found again when opened before, withdrawn on cancellation."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import activity

from domain.commit_text import subject
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.job_details import JobDetails, JobStateDetails, PullRequestRecord
from domain.jobs import Job, JobState
from domain.names.ids import derived_id
from domain.pull_request_text import body, job_mark
from domain.repositories import Repository, base_branch
from host.job_progress import Progress
from host.shielding import run_to_completion
from host.slots.leases import LeaseKey, Leases
from scm.protocol import CodeHost, NewPullRequest, PullRequest, PullRequestKey
from settings import GithubSettings
from store.protocol import JobChanges, Store
from workspace.publishing import Publishing

LABELLING_ATTEMPTS = 5
"""Half a minute of tries by the policy, for what a pull request can do without."""

_TAKEN_BACK = "The job was cancelled while it was published; what it had published was taken back."
_BRANCH_STAYS = (
    "The job was cancelled while it was published. Its pull request is closed; its branch stays, "
    "because it is not the job's alone, or is the only copy of the work."
)


@dataclass(frozen=True, slots=True)
class OpenInput:
    """The lease under which to open, and the commit that was pushed."""

    key: LeaseKey
    sha: str


@dataclass(frozen=True, slots=True)
class PullRequestResult:
    """The pull request that exists now."""

    number: int
    url: str


@dataclass(frozen=True, slots=True)
class WithdrawInput:
    """What to take back of a cancelled job; whether it made its branch or continued one."""

    job_id: str
    created_branch: bool


class PullRequestActivities:
    """Pull requests of code jobs."""

    def __init__(
        self,
        store: Store,
        leases: Leases,
        publishing: Publishing,
        code_host: CodeHost,
        settings: GithubSettings,
    ) -> None:
        self._store = store
        self._leases = leases
        self._publishing = publishing
        self._code_host = code_host
        self._settings = settings
        self._progress = Progress(store)

    @activity.defn
    async def open_pull_request(self, request: OpenInput) -> PullRequestResult:
        """Open the job's pull request, or find the open one of its branch; record it. Repeatable.

        Success means that the branch has the commit and that its pull request is open.

        Raises:
            JobFailure: GitHub refused it, or did not answer; or the branch has lost the commit.
        """
        key = request.key
        self._leases.require(key)
        details = await self._details(key.job_id)
        await self._progress.update(key, {})
        repository = _repository(details)
        # A request that is under way cannot be called back, so its effect is awaited.
        new = self._new_pull_request(details.job, repository)
        pull = await run_to_completion(self._code_host.open_or_find(new))
        await self._record(key, details, repository, pull)
        await self._label_and_review(details.job, repository, pull)
        if pull.head_sha != request.sha:
            await self._require_pushed(details.job, repository, request.sha)
        return PullRequestResult(pull.number, pull.url)

    @activity.defn
    async def withdraw(self, request: WithdrawInput) -> None:
        """Close the job's own open pull request and delete the branch it created. Repeatable.

        A branch that existed before the job, or that somebody has pushed to since, stays.
        """
        details = await self._store.get_job_state(request.job_id)
        if details is None:
            raise _row_is_gone()
        job, repository = details.job, _repository(details)
        if job.head_sha is None:
            return
        closed = await self._code_host.close(_key(job, repository), job_mark(job.id))
        stays = not request.created_branch
        if request.created_branch:
            stays = not await self._delete_branch(job, repository, job.head_sha)
        if closed or request.created_branch:
            text = _BRANCH_STAYS if stays else _TAKEN_BACK
            await self._progress.notify(request.job_id, text, once="withdrawn")

    def _new_pull_request(self, job: Job, repository: Repository) -> NewPullRequest:
        draft = job.options.draft
        return NewPullRequest(
            key=_key(job, repository),
            title=subject(job),
            body=body(job),
            draft=self._settings.pull_request_draft if draft is None else draft,
        )

    async def _label_and_review(self, job: Job, repository: Repository, pull: PullRequest) -> None:
        """Set labels and reviewers. What cannot be had is told, and no reason to fail the job."""
        labels, reviewers = job.options.labels, job.options.reviewers
        if labels is None:
            labels = self._settings.pull_request_labels
        if reviewers is None:
            reviewers = self._settings.pull_request_reviewers
        if not labels and not reviewers:
            return
        try:
            notices = await self._code_host.label_and_review(
                repository.full_name, pull.number, labels, reviewers
            )
        except JobFailure as failure:
            if activity.info().attempt < LABELLING_ATTEMPTS:
                raise
            notices = [f"Labels and reviewers were not set. {failure.message}"]
        for notice in notices:
            await self._progress.notify(job.id, notice, once=("notice", notice))

    async def _require_pushed(self, job: Job, repository: Repository, sha: str) -> None:
        """Check by git that the branch has the commit; the pull request may show more, or lag."""
        owner, name = repository.owner_name, repository.repo_name
        if not await self._publishing.remote_contains(owner, name, job.branch_name, sha):
            raise JobFailure(FailureCode.BRANCH_MOVED)

    async def _delete_branch(self, job: JobState, repository: Repository, sha: str) -> bool:
        """Delete the branch, unless somebody else has pushed to it; tell whether it is gone."""
        try:
            await self._publishing.delete_remote_branch(
                repository.owner_name, repository.repo_name, job.branch_name, sha
            )
        except JobFailure as failure:
            if failure.code is not FailureCode.BRANCH_MOVED:
                raise
            return False
        return True

    async def _record(
        self, key: LeaseKey, details: JobDetails, repository: Repository, pull: PullRequest
    ) -> None:
        job = details.job
        page = f"{self._settings.server_url}/{repository.full_name}"
        record = PullRequestRecord(
            branch_id=derived_id(job.id, "branch"),
            pull_request_id=derived_id(job.id, "pull request"),
            repository_id=repository.id,
            feature_id=job.feature_id,
            branch_name=job.branch_name,
            branch_url=f"{page}/tree/{job.branch_name}",
            number=pull.number,
            title=subject(job),
            url=pull.url,
        )
        await self._store.record_pull_request(record)
        changes: JobChanges = {
            "pr_url": pull.url,
            "pr_number": pull.number,
            "code_branch_id": record.branch_id,
            "code_pull_request_id": record.pull_request_id,
        }
        await self._progress.update(key, changes)
        await self._progress.notify(
            job.id, f"Pull request #{pull.number}: {pull.url}", once=("opened", pull.number)
        )

    async def _details(self, job_id: str) -> JobDetails:
        details = await self._store.get_job(job_id)
        if details is None:
            raise _row_is_gone()
        return details


def _row_is_gone() -> JobFailure:
    return JobFailure(FailureCode.INTERNAL, "The job's row is gone.")


def _repository(details: JobStateDetails) -> Repository:
    if details.repository is None:
        raise JobFailure(FailureCode.REPOSITORY_NOT_FOUND)
    return details.repository


def _key(job: JobState, repository: Repository) -> PullRequestKey:
    return PullRequestKey(repository.full_name, job.branch_name, base_branch(job, repository))
