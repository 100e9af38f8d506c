"""Opening and finding pull requests, and withdrawing those of cancelled jobs."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.pull_requests import (
    LABELLING_ATTEMPTS,
    OpenPullRequestInput,
    OpenPullRequestResult,
)
from activities.withdrawals import WithdrawInput
from activities.workspaces import PublishInput
from domain.errors import JobFailure, LeaseLost
from domain.failures import FailureCode
from domain.jobs import LIVE, Job, JobOptions, JobStatus
from domain.pull_request_text import job_mark
from fakes.github.server import FakeGitHub
from host.slots.leases import LeaseKey
from settings import GithubSettings
from store.protocol import Guard
from tests.integration.activities.worker_host import NAME, OWNER, Granted, WorkerHost
from tests.unit.store.samples import UNKNOWN_ID


def rows(directory: Path, table: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(directory / "store" / "orchestrator.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def states(forge: FakeGitHub) -> list[str]:
    return [pull.state for pull in forge.pull_requests(OWNER, NAME)]


def somebody_opens(forge: FakeGitHub, branch: str) -> None:
    repository = forge.repository(OWNER, NAME)
    with repository.lock:
        repository.pulls.open("alice", "Hers", "By hand", branch, "main", draft=False)


def somebody_resets(forge: FakeGitHub, branch: str) -> None:
    git = ("git", "-C", str(forge.repository(OWNER, NAME).bare.path))
    subprocess.run([*git, "update-ref", f"refs/heads/{branch}", "refs/heads/main"], check=True)


async def published(
    host: WorkerHost, branch: str | None = None, **overrides: Any
) -> tuple[Granted, str]:
    """A job whose branch is pushed, without a pull request."""
    if branch:
        overrides["branch_name"] = branch
    granted, worktree = await host.prepared(title="Add a login page", **overrides)
    (worktree.path / "login.py").write_text("login\n")
    result = await host.run(host.workspaces.publish, PublishInput(granted.key))
    assert result.sha is not None
    return granted, result.sha


@pytest.fixture
async def work(host: WorkerHost) -> tuple[Granted, str]:
    return await published(host)


Work = tuple[Granted, str]


async def open_one(host: WorkerHost, work: Work) -> OpenPullRequestResult:
    return await host.run(
        host.pull_requests.open_pull_request, OpenPullRequestInput(work[0].key, work[1])
    )


async def withdraw(host: WorkerHost, job: Job, *, created: bool = True) -> None:
    changes: Any = {"status": JobStatus.CANCELLED}
    await host.world.store.update_job(job.id, changes, Guard(LIVE))
    await host.run(host.withdrawals.withdraw, WithdrawInput(job.id, created))


async def test_a_pull_request_is_opened_and_recorded_once(
    host: WorkerHost, forge: FakeGitHub, work: Work, tmp_path: Path
) -> None:
    first = await open_one(host, work)
    assert await open_one(host, work) == first
    (pull,) = forge.pull_requests(OWNER, NAME)
    job = work[0].job
    assert (pull.title, pull.head, pull.base) == ("Add a login page", job.branch_name, "main")
    assert job_mark(job.id) in str(pull.body)
    assert pull.head_sha == work[1]
    row = await host.world.read(job)
    assert (row.pr_number, row.pr_url) == (first.number, first.url)
    (branch,) = rows(tmp_path, "code_branches")
    (recorded,) = rows(tmp_path, "code_pull_requests")
    assert (branch["id"], recorded["id"]) == (row.code_branch_id, row.code_pull_request_id)
    page = f"https://github.example/acme/shop/tree/{job.branch_name}"
    assert page in branch.values()
    assert {first.number, first.url, "Add a login page"} <= set(recorded.values())
    messages = await host.messages(job)
    assert messages.count(f"Pull request #{first.number}: {first.url}") == 1


async def test_an_open_pull_request_of_the_branch_is_reused(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    somebody_opens(forge, "feature/old")
    work = await published(host, "feature/old")
    assert (await open_one(host, work)).number == 1
    assert states(forge) == ["open"]


async def test_a_closed_pull_request_is_not_reused(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    somebody_opens(forge, work[0].job.branch_name)
    forge.pull_requests(OWNER, NAME)[0].close()
    assert (await open_one(host, work)).number == 2
    assert states(forge) == ["closed", "open"]


async def test_a_pull_request_opened_at_the_same_time_is_found(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    """It is not listed yet, and GitHub refuses to create a second one."""
    somebody_opens(forge, work[0].job.branch_name)
    forge.fail_next("pulls/list", status=200, body="[]")
    assert (await open_one(host, work)).number == 1
    assert states(forge) == ["open"]


@pytest.mark.parametrize("status", [None, 502])
async def test_a_pull_request_is_found_after_a_lost_response(
    host: WorkerHost, forge: FakeGitHub, work: Work, status: int | None
) -> None:
    forge.fail_next("pulls/create", status=status, after=True)
    with pytest.raises(JobFailure) as caught:
        await open_one(host, work)
    assert caught.value.transient
    assert (await host.world.read(work[0].job)).pr_number is None
    assert (await open_one(host, work)).number == 1
    assert states(forge) == ["open"]


async def test_a_refusal_keeps_its_reason(host: WorkerHost, forge: FakeGitHub, work: Work) -> None:
    forge.commit(OWNER, NAME, "main", {"x": "x"}, "Move on")
    reason = {"message": "Validation Failed", "errors": [{"message": "Title is not allowed"}]}
    forge.fail_next("pulls/create", status=422, body=reason)
    with pytest.raises(JobFailure, match="Title is not allowed") as caught:
        await open_one(host, work)
    assert caught.value.code is FailureCode.GITHUB_REFUSED
    assert states(forge) == []


async def test_a_lost_lease_opens_nothing(host: WorkerHost, forge: FakeGitHub, work: Work) -> None:
    granted, sha = work
    with pytest.raises(LeaseLost):
        await open_one(host, (Granted(granted.job, LeaseKey(granted.job.id, 2)), sha))
    await host.world.store.update_job(granted.job.id, {"lease": 2}, Guard(LIVE))
    with pytest.raises(LeaseLost):
        await open_one(host, work)
    assert states(forge) == []


async def test_withdrawing_closes_the_pull_request_and_deletes_the_branch(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    await open_one(host, work)
    for _ in range(2):
        await withdraw(host, work[0].job)
    assert states(forge) == ["closed"]
    assert set(forge.branches(OWNER, NAME)) == {"main"}
    messages = [line for line in await host.messages(work[0].job) if "was deleted" in line]
    assert len(messages) == 1


async def test_withdrawing_deletes_a_branch_without_a_pull_request(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    await withdraw(host, work[0].job)
    assert set(forge.branches(OWNER, NAME)) == {"main"}
    assert states(forge) == []


async def test_withdrawing_keeps_a_continued_branch(host: WorkerHost, forge: FakeGitHub) -> None:
    forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    work = await published(host, "feature/old")
    await open_one(host, work)
    await withdraw(host, work[0].job, created=False)
    assert states(forge) == ["closed"]
    assert forge.branches(OWNER, NAME)["feature/old"] == work[1]
    assert "was deleted" not in (await host.messages(work[0].job))[-1]


async def test_withdrawing_keeps_a_branch_with_commits_of_others(
    host: WorkerHost, forge: FakeGitHub, work: Work
) -> None:
    await open_one(host, work)
    branch = work[0].job.branch_name
    theirs = forge.commit(OWNER, NAME, branch, {"more.py": "more"}, "Go on")
    await withdraw(host, work[0].job)
    assert forge.branches(OWNER, NAME)[branch] == theirs
    assert states(forge) == ["closed"]
    assert "was kept" in (await host.messages(work[0].job))[-1]


async def test_withdrawing_leaves_the_pull_request_of_someone_else_open(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    forge.commit(OWNER, NAME, "feature/old", {"old.py": "old"}, "Begin")
    somebody_opens(forge, "feature/old")
    work = await published(host, "feature/old")
    await open_one(host, work)
    before = await host.messages(work[0].job)
    await withdraw(host, work[0].job, created=False)
    assert states(forge) == ["open"]
    assert await host.messages(work[0].job) == before


async def test_an_unpublished_job_sends_no_request(host: WorkerHost, forge: FakeGitHub) -> None:
    granted, _ = await host.prepared()
    asked = len(forge.requests)
    await withdraw(host, granted.job)
    assert len(forge.requests) == asked
    with pytest.raises(JobFailure) as caught:
        await host.run(host.withdrawals.withdraw, WithdrawInput(UNKNOWN_ID, True))
    assert caught.value.code is FailureCode.REPOSITORY_NOT_FOUND


async def test_withdraw_continues_after_an_outage(
    host: WorkerHost, forge: FakeGitHub, work: Work, tmp_path: Path
) -> None:
    """Any worker can do it, also without the repository on its disk."""
    await open_one(host, work)
    forge.fail_next("git-receive-pack*", status=503, times=3)
    with pytest.raises(JobFailure):
        await withdraw(host, work[0].job)
    forge.clear_faults()
    await withdraw(WorkerHost(tmp_path / "other", host.world, forge), work[0].job)
    assert states(forge) == ["closed"]
    assert set(forge.branches(OWNER, NAME)) == {"main"}


async def test_a_pull_request_has_the_options_of_the_job(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    forge.commit(OWNER, NAME, "develop", {"dev.py": "dev"}, "Develop")
    options = JobOptions(
        base_branch="develop", draft=True, labels=("auto", "login"), reviewers=("alice", "acme/web")
    )
    work = await published(host, options=options)
    for _ in range(2):
        await open_one(host, work)
    (pull,) = forge.pull_requests(OWNER, NAME)
    assert (pull.base, pull.draft) == ("develop", True)
    assert sorted(pull.labels) == ["auto", "login"]
    assert pull.reviewers == ["alice"]
    assert pull.head_sha == work[1]


async def test_settings_are_the_defaults_of_a_job(host: WorkerHost, forge: FakeGitHub) -> None:
    host.pull_requests._settings = GithubSettings.model_validate(
        {
            "PULL_REQUEST_DRAFT": "true",
            "PULL_REQUEST_LABELS": "auto",
            "PULL_REQUEST_REVIEWERS": "alice",
        }
    )
    await open_one(host, await published(host))
    await open_one(host, await published(host, options=JobOptions(draft=False, labels=())))
    first, second = forge.pull_requests(OWNER, NAME)
    assert (first.draft, first.labels, first.reviewers) == (True, ["auto"], ["alice"])
    assert (second.draft, second.labels, second.reviewers) == (False, [], ["alice"])


async def test_an_invalid_reviewer_is_reported_and_fails_nothing(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    work = await published(host, options=JobOptions(reviewers=("bot", "alice")))
    await open_one(host, work)
    (pull,) = forge.pull_requests(OWNER, NAME)
    assert pull.reviewers == ["alice"]
    assert [line for line in await host.messages(work[0].job) if "bot: not asked" in line]


async def test_labels_are_retried_after_an_error(host: WorkerHost, forge: FakeGitHub) -> None:
    work = await published(host, options=JobOptions(labels=("auto",)))
    forge.fail_next("issues/add-labels", status=502)
    with pytest.raises(JobFailure) as caught:
        await open_one(host, work)
    assert caught.value.transient
    await open_one(host, work)
    (pull,) = forge.pull_requests(OWNER, NAME)
    assert pull.labels == ["auto"]


async def test_labels_that_fail_repeatedly_are_reported(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    work = await published(host, options=JobOptions(labels=("auto",)))
    forge.fail_next("issues/add-labels", status=503, times=2)
    request = OpenPullRequestInput(work[0].key, work[1])
    with pytest.raises(JobFailure):
        await host.run(host.pull_requests.open_pull_request, request)
    row = await host.world.read(work[0].job)
    assert row.pr_number == 1
    last = ActivityEnvironment()
    last.info = replace(last.info, attempt=LABELLING_ATTEMPTS)
    assert (await last.run(host.pull_requests.open_pull_request, request)).number == 1
    assert [line for line in await host.messages(work[0].job) if "were not set" in line]


async def test_later_commits_on_the_branch_are_accepted(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    work = await published(host)
    forge.commit(OWNER, NAME, work[0].job.branch_name, {"more.py": "more"}, "More")
    await open_one(host, work)
    (pull,) = forge.pull_requests(OWNER, NAME)
    assert pull.head_sha != work[1]


async def test_a_branch_that_lost_the_commit_is_a_failure(
    host: WorkerHost, forge: FakeGitHub
) -> None:
    work = await published(host)
    somebody_opens(forge, work[0].job.branch_name)
    somebody_resets(forge, work[0].job.branch_name)
    with pytest.raises(JobFailure) as caught:
        await open_one(host, work)
    assert caught.value.code is FailureCode.BRANCH_MOVED
