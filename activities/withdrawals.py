"""Undoing what a cancelled job has published. Runs on the `records` task queue of any worker."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import activity

from activities.pull_requests import pull_request_key
from domain.errors import JobFailure
from domain.failures import FailureCode
from domain.jobs import JobState
from domain.pull_request_text import job_mark
from domain.repositories import Repository
from host.job_lookup import job_state_and_repository
from host.job_progress import Progress
from scm.protocol import CodeHost
from store.protocol import Store
from workspace.publishing import Publishing

_BRANCH_DELETED = (
    "The job was cancelled while it was publishing. Its branch was deleted and its pull request, "
    "if it had one, was closed."
)
_BRANCH_KEPT = (
    "The job was cancelled while it was publishing. Its pull request, if it had one, was closed. "
    "Its branch was kept, because it is not the job's alone or is the only copy of the work."
)


@dataclass(frozen=True, slots=True)
class WithdrawInput:
    """`delete_branch`: the job created its branch, and its work is also kept elsewhere."""

    job_id: str
    delete_branch: bool


class WithdrawalActivities:
    """Closes pull requests and deletes branches. Needs no lease: the job has ended."""

    def __init__(self, store: Store, publishing: Publishing, code_host: CodeHost) -> None:
        self._store = store
        self._publishing = publishing
        self._code_host = code_host
        self._progress = Progress(store)

    @activity.defn
    async def withdraw(self, request: WithdrawInput) -> None:
        """Close the job's own open pull request, and delete its branch if asked to. Idempotent.

        A branch that someone else has pushed to since is not deleted.
        """
        job, repository = await job_state_and_repository(self._store, request.job_id)
        if job.head_sha is None:
            return
        key = pull_request_key(job, repository)
        closed = await self._code_host.close(key, job_mark(job.id))
        deleted = request.delete_branch and await self._delete_branch(job, repository, job.head_sha)
        if closed or request.delete_branch:
            text = _BRANCH_DELETED if deleted else _BRANCH_KEPT
            await self._progress.notify(job.id, text, once="withdrawn")

    async def _delete_branch(self, job: JobState, repository: Repository, sha: str) -> bool:
        """Delete the branch if it is still at `sha`. Return whether it is gone."""
        try:
            await self._publishing.delete_remote_branch(
                repository.owner_name, repository.repo_name, job.branch_name, sha
            )
        except JobFailure as failure:
            if failure.code is not FailureCode.BRANCH_MOVED:
                raise
            return False
        return True
