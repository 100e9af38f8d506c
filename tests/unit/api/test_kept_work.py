"""Work that was not delivered: GET /jobs/:id/patch, and POST /jobs/:id/retry from publishing."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient

from domain.job_details import KeptWork
from domain.jobs import JobOptions, JobStatus, JobType, Outcome, Phase, RetryFrom
from domain.names.ids import new_id
from tests.unit.api.calls import BEARER, START, Api, later

BASE, HEAD = "1" * 40, "2" * 40
PUBLISH = {"from": "publish"}
JSON = {**BEARER, "Accept": "application/json"}

FILES = {
    "plain.txt": b"one\ntwo\n",
    "dos.txt": b"one\r\ntwo\r\n",
    "picture.bin": bytes(range(256)),
    "no newline": b"end",
    "ümlaut 🚀.txt": "größe\n".encode(),
}


def git(*arguments: str, at: Path, text: str = "") -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    command = ("git", *identity, *arguments)
    done = subprocess.run(command, cwd=at, input=text.encode(), capture_output=True, check=True)
    return done.stdout.decode()


def commit(repository: Path, files: dict[str, bytes]) -> str:
    """The id of a commit that has these files."""
    for name, content in files.items():
        (repository / name).write_bytes(content)
    git("add", "--all", at=repository)
    git("commit", "--quiet", "--message", "Work", at=repository)
    return git("rev-parse", "HEAD", at=repository).strip()


async def keep(api: Api, job_id: str, **values: Any) -> None:
    work = {"base_sha": BASE, "head_sha": HEAD, "host": "mill", "patch": "diff --git a/x b/x\n"}
    await api.store.keep_work(KeptWork(job_id=job_id, created_at=START, **{**work, **values}))


async def ended(api: Api, status: JobStatus = JobStatus.FAILED, **values: Any) -> str:
    values = {"phase": None, "branch_name": "feature/x", **values}
    return (await api.seed_job(await api.add_owner(), status=status, **values)).id


async def publications(api: Api, original: str, count: int = 3) -> list[str]:
    """Jobs that were to publish the work, each as a retry of the one before, and left nothing."""
    made = [original]
    for _ in range(count):
        made.append(await ended(api, retry_of=made[-1], retry_from=RetryFrom.PUBLISH))
    return made[1:]


class TestPatch:
    async def test_it_needs_the_secret(self, api: Api) -> None:
        await api.needs_secret("GET", f"/jobs/{new_id()}/patch")

    @pytest.mark.parametrize("as_binary", [False, True])
    async def test_git_applies_it(self, api: Api, tmp_path: Path, as_binary: bool) -> None:
        repository = tmp_path / "repository"
        git("init", "--quiet", str(repository), at=tmp_path)
        base = commit(repository, {"plain.txt": b"one\n", "gone.txt": b"x\n"})
        (repository / "gone.txt").unlink()
        head = commit(repository, FILES)
        if as_binary:
            (repository / ".git" / "info" / "attributes").write_text("* -diff\n")
        diff = git("diff", "--binary", "--full-index", base, head, at=repository)
        job_id = await ended(api)
        await keep(api, job_id, base_sha=base, head_sha=head, patch=diff)

        response = await api.call("GET", f"/jobs/{job_id}/patch")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/x-patch; charset=utf-8"
        assert response.headers["x-base-commit"] == base
        text = response.content.decode()
        assert text.startswith(f"Job: {job_id}\nBase: {base}\n")
        git("checkout", "--quiet", base, at=repository)
        git("apply", "--index", "-", at=repository, text=text)
        tree = git("rev-parse", f"{head}^{{tree}}", at=repository)
        assert git("write-tree", at=repository) == tree

    @pytest.mark.parametrize(
        "accept",
        ["application/json", "APPLICATION/JSON; q=0.9, text/plain", "a/b,application/json"],
    )
    async def test_as_an_object(self, api: Api, accept: str) -> None:
        job_id = await ended(api, JobStatus.CANCELLED)
        await keep(api, job_id)
        response = await api.call(
            "GET", f"/jobs/{job_id}/patch", headers={**BEARER, "Accept": accept}
        )
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-base-commit"] == BASE
        assert response.json() == {
            "id": job_id,
            "base_sha": BASE,
            "head_sha": HEAD,
            "branch_name": "feature/x",
            "patch": "diff --git a/x b/x\n",
            "created_at": "2026-03-01T12:30:15.123Z",
        }

    @pytest.mark.parametrize(
        "accept", [None, "*/*", "", "text/html, */*", "text/x-patch, application/json"]
    )
    async def test_as_text(self, api: Api, accept: str | None) -> None:
        job_id = await ended(api)
        await keep(api, job_id)
        headers = BEARER if accept is None else {**BEARER, "Accept": accept}
        response = await api.call("GET", f"/jobs/{job_id}/patch", headers=headers)
        assert response.headers["content-type"] == "text/x-patch; charset=utf-8"

    @pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
    async def test_of_a_job_that_has_not_ended(self, api: Api, status: JobStatus) -> None:
        job_id = await ended(api, status, phase=Phase.WORKING)
        await keep(api, job_id)
        assert await api.refusal(409, "GET", f"/jobs/{job_id}/patch") == (
            "The job has not ended yet. Try again when it has."
        )

    async def test_while_the_job_cleans_up(self, api: Api) -> None:
        job_id = await ended(api, JobStatus.CANCELLED, phase=Phase.CLEANING_UP)
        path = f"/jobs/{job_id}/patch"
        assert await api.refusal(409, "GET", path) == (
            "The job is still cleaning up. Try again in a moment."
        )
        await keep(api, job_id)
        assert (await api.call("GET", path)).status_code == 200

    async def test_of_a_job_that_delivered_everything(self, api: Api) -> None:
        url = "https://github.test/acme/shop/pull/7"
        job_id = await ended(
            api, JobStatus.COMPLETED, outcome=Outcome.PULL_REQUEST, pr_url=url, pr_number=7
        )
        assert await api.refusal(404, "GET", f"/jobs/{job_id}/patch") == (
            f"The job delivered all its work in the pull request {url}."
        )

    @pytest.mark.parametrize("outcome", [Outcome.NO_CHANGES, Outcome.ANSWERED])
    async def test_of_a_job_that_changed_nothing(self, api: Api, outcome: Outcome) -> None:
        job_id = await ended(api, JobStatus.COMPLETED, outcome=outcome)
        assert await api.refusal(404, "GET", f"/jobs/{job_id}/patch") == (
            "The job completed without changes, so it has no undelivered work."
        )

    @pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
    async def test_that_is_not_kept(self, api: Api, status: JobStatus) -> None:
        job_id = await ended(api, status)
        await keep(api, job_id)
        await api.store.forget_work(later(1), ())
        assert await api.refusal(404, "GET", f"/jobs/{job_id}/patch") == (
            "No undelivered work is kept for this job: it produced none, its host has not saved "
            "it yet, or it has expired (KEEP_WORK_DAYS). Retry the job."
        )

    @pytest.mark.parametrize("headers", [BEARER, JSON])
    async def test_that_is_too_long(self, api: Api, headers: dict[str, str]) -> None:
        job_id = await ended(api)
        await keep(api, job_id, patch=None)
        response = await api.call("GET", f"/jobs/{job_id}/patch", headers=headers)
        assert (response.status_code, response.json()) == (
            404,
            {
                "error": "The patch is too large to be stored. The work is on the host mill, in "
                f"the mirror of acme/shop in REPOS_DIR, as refs/orchestrator/salvage/{job_id}. Run "
                f"`git diff --binary {BASE} {HEAD}` there."
            },
        )

    async def test_that_a_failed_publication_did_not_take_up(self, api: Api) -> None:
        original = await ended(api)
        await keep(api, original)
        retries = await publications(api, original)
        for retry in retries:
            assert await api.refusal(404, "GET", f"/jobs/{retry}/patch") == (
                "No work is kept for this job, because it was to publish the work of job "
                f"{original}. That work is still kept: get it from GET /jobs/{original}/patch, or "
                "retry this job with `from` set to publish."
            )
        await api.store.forget_work(later(1), ())
        reason = await api.refusal(404, "GET", f"/jobs/{retries[-1]}/patch")
        assert "or it has expired (KEEP_WORK_DAYS)" in reason

    @pytest.mark.parametrize(
        ("status", "phase", "code", "said"),
        [
            (JobStatus.QUEUED, Phase.WAITING_FOR_SLOT, 409, "has not ended yet"),
            (JobStatus.FAILED, Phase.CLEANING_UP, 409, "still cleaning up"),
            (JobStatus.COMPLETED, None, 404, "delivered all its work"),
        ],
    )
    async def test_that_another_publication_has_or_has_not_delivered(
        self, api: Api, status: JobStatus, phase: Phase | None, code: int, said: str
    ) -> None:
        original = await ended(api)
        await keep(api, original)
        [retry] = await publications(api, original, count=1)
        await api.change_job(retry, status=status, phase=phase, pr_url="https://github.test/1")
        assert said in await api.refusal(code, "GET", f"/jobs/{retry}/patch")


class TestPublishingIt:
    async def test_a_new_job_begins_there(self, api: Api, parked: TemporalClient) -> None:
        options = JobOptions(draft=True, labels=("bot",))
        original = await ended(api, options=options, priority=2)
        await keep(api, original)
        answer = await api.post(f"/jobs/{original}/retry", PUBLISH, 201)
        assert answer["originalJobId"] == original
        assert re.fullmatch(r"feature/x-retry-\d{13}", answer["branchName"])
        job = await api.get(f"/jobs/{answer['id']}")
        assert (job["retry_of"], job["retry_from"]) == (original, "publish")
        assert (job["draft"], job["labels"], job["priority"]) == (True, ["bot"], 2)
        assert (job["status"], job["job_type"]) == ("queued", "code")
        described = await parked.get_workflow_handle(f"job-{job['id']}").describe()
        assert described.workflow_type == "CodeJob"

    @pytest.mark.parametrize("body", [None, {}, {"from": None}])
    async def test_else_it_begins_anew(self, api: Api, body: Any) -> None:
        original = await ended(api)
        await keep(api, original)
        answer = await api.post(f"/jobs/{original}/retry", body, 201)
        job = await api.get(f"/jobs/{answer['id']}")
        assert (job["retry_of"], job["retry_from"]) == (original, None)

    @pytest.mark.parametrize("start", ["push", "", "PUBLISH", 7, ["publish"], True])
    async def test_an_unknown_start(self, api: Api, start: Any) -> None:
        original = await ended(api)
        await keep(api, original)
        reason = await api.refusal(400, "POST", f"/jobs/{original}/retry", {"from": start})
        assert reason == 'from: must be "publish", or left out to start from the beginning.'

    async def test_of_a_conversation(self, api: Api) -> None:
        original = await ended(api, job_type=JobType.TASK)
        await keep(api, original)
        assert await api.refusal(400, "POST", f"/jobs/{original}/retry", PUBLISH) == (
            "A task job has nothing to publish. Leave `from` out to start the conversation again."
        )

    async def test_of_a_job_whose_work_is_not_kept(self, api: Api) -> None:
        original = await ended(api)
        assert await api.refusal(400, "POST", f"/jobs/{original}/retry", PUBLISH) == (
            "No work of this job is kept that could be published, or its host has not saved it "
            "yet. Try again in a minute, or leave `from` out to run Claude again."
        )

    @pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED])
    async def test_of_a_job_that_did_not_fail(self, api: Api, status: JobStatus) -> None:
        original = await ended(api, status)
        await keep(api, original)
        assert await api.refusal(400, "POST", f"/jobs/{original}/retry", PUBLISH) == (
            f"Only failed and cancelled jobs can be retried; this one is {status}."
        )
        assert (await api.get("/jobs"))["total"] == 1

    async def test_again_and_again_until_it_is_published(
        self, api: Api, parked: TemporalClient
    ) -> None:
        original = await ended(api, result="Claude's words.")
        await keep(api, original)
        retried = original
        for _ in range(3):
            answer = await api.post(f"/jobs/{retried}/retry", PUBLISH, 201)
            assert answer["originalJobId"] == retried
            retried = answer["id"]
            job = await api.get(f"/jobs/{retried}")
            assert (job["retry_of"], job["retry_from"]) == (original, "publish")
            assert (job["host"], job["result"]) == ("mill", "Claude's words.")
            await api.post(f"/jobs/{retried}/cancel")

    async def test_what_several_publications_have_not_taken_up(self, api: Api) -> None:
        original = await ended(api, result="Claude's words.")
        await keep(api, original)
        last = (await publications(api, original))[-1]
        answer = await api.post(f"/jobs/{last}/retry", PUBLISH, 201)
        assert answer["originalJobId"] == last
        job = await api.get(f"/jobs/{answer['id']}")
        assert (job["retry_of"], job["host"]) == (original, "mill")
        assert job["result"] == "Claude's words."

    async def test_what_the_last_publication_has_left(self, api: Api) -> None:
        original = await ended(api)
        _, second, third = await publications(api, original)
        await keep(api, original)
        await keep(api, second, host="other")
        answer = await api.post(f"/jobs/{third}/retry", PUBLISH, 201)
        job = await api.get(f"/jobs/{answer['id']}")
        assert (job["retry_of"], job["host"]) == (second, "other")

    async def test_not_the_work_of_a_job_that_was_to_be_done_anew(self, api: Api) -> None:
        original = await ended(api)
        await keep(api, original)
        anew = await ended(api, retry_of=original)
        last = (await publications(api, anew))[-1]
        reason = await api.refusal(400, "POST", f"/jobs/{last}/retry", PUBLISH)
        assert "No work of this job is kept" in reason

    async def test_of_jobs_that_retry_each_other(self, api: Api) -> None:
        first, second = await publications(api, await ended(api), count=2)
        with closing(sqlite3.connect(api.path)) as database, database:
            database.execute("UPDATE agent_jobs SET retry_of = ? WHERE id = ?", (second, first))
        reason = await api.refusal(400, "POST", f"/jobs/{first}/retry", PUBLISH)
        assert "No work of this job is kept" in reason
