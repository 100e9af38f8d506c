"""Opening a job's pull request: once, however often it is tried."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import activity

from domain.commit_text import subject
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.job_details import PullRequestRecord
from domain.jobs import Job, JobState
from domain.names.ids import derived_id
from domain.pull_request_text import body
from domain.repositories import Repository, base_branch
from host.job_lookup import job_and_repository
from host.job_progress import Progress
from host.shielding import run_to_completion
from host.slots.leases import LeaseKey, Leases
from scm.protocol import CodeHost, NewPullRequest, PullRequest, PullRequestKey
from settings import GithubSettings
from store.protocol import JobChanges, Store
from workspace.publishing import Publishing

LABELLING_ATTEMPTS = 5
"""Half a minute of retries. Later attempts continue without labels and reviewers."""


@dataclass(frozen=True, slots=True)
class OpenPullRequestInput:
    """`sha` is the commit that was pushed."""

    lease: LeaseKey
    sha: str


@dataclass(frozen=True, slots=True)
class OpenPullRequestResult:
    """The open pull request, on GitHub."""

    number: int
    url: str


class PullRequestActivities:
    """Opens pull requests on the code host."""

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
    async def open_pull_request(self, request: OpenPullRequestInput) -> OpenPullRequestResult:
        """Open the job's pull request, or find the open one of its branch. Idempotent.

        When this returns, the branch has the commit, its pull request is open and both are
        recorded.

        Raises:
            JobFailure: GitHub refused the request or did not answer, or the branch no longer has
                the commit.
            LeaseLost: this process no longer holds the lease.
        """
        lease = request.lease
        self._leases.require(lease)
        job, repository = await job_and_repository(self._store, lease.job_id)
        # Fails if the job has ended or has another lease, before anything is published.
        await self._progress.update(lease, {})
        new = self._new_pull_request(job, repository)
        # A request that was sent cannot be cancelled, so wait for its effect.
        pull = await run_to_completion(self._code_host.open_or_find(new))
        await self._record(lease, job, repository, pull)
        await self._label_and_review(job, repository, pull)
        if pull.head_sha != request.sha:
            await self._require_pushed(job, repository, request.sha)
        return OpenPullRequestResult(pull.number, pull.url)

    def _new_pull_request(self, job: Job, repository: Repository) -> NewPullRequest:
        draft = job.options.draft
        return NewPullRequest(
            key=pull_request_key(job, repository),
            title=subject(job),
            body=body(job),
            draft=self._settings.pull_request_draft if draft is None else draft,
        )

    async def _label_and_review(self, job: Job, repository: Repository, pull: PullRequest) -> None:
        """Set labels and reviewers. If GitHub refuses some, add a message and do not fail."""
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
        """Check with git that the branch has the commit.

        The pull request may show a newer head, or an older one for some seconds after a push.
        """
        owner, name = repository.owner_name, repository.repo_name
        if not await self._publishing.remote_contains(owner, name, job.branch_name, sha):
            raise JobFailure(FailureCode.BRANCH_MOVED)

    async def _record(
        self, lease: LeaseKey, job: Job, repository: Repository, pull: PullRequest
    ) -> None:
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
        await self._progress.update(lease, changes)
        await self._progress.notify(
            job.id, f"Pull request #{pull.number}: {pull.url}", once=("opened", pull.number)
        )


def pull_request_key(job: JobState, repository: Repository) -> PullRequestKey:
    """Return the repository and the two branches of the job's pull request."""
    return PullRequestKey(repository.full_name, job.branch_name, base_branch(job, repository))
