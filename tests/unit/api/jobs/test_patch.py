"""GET /jobs/:id/patch."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from domain.job_details import KeptWork
from domain.jobs import JobStatus, Outcome, Phase, RetryFrom
from domain.names.ids import new_id
from tests.unit.api.calls import BEARER, START, Api, later

BASE, HEAD = "1" * 40, "2" * 40
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
    """Commit these files and return the commit's id."""
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
    """Add publish-only retries without kept work, each of the job before, and return their ids."""
    made = [original]
    for _ in range(count):
        made.append(await ended(api, retry_of=made[-1], retry_from=RetryFrom.PUBLISH))
    return made[1:]


class TestPatch:
    async def test_secret_is_required(self, api: Api) -> None:
        await api.needs_secret("GET", f"/jobs/{new_id()}/patch")

    @pytest.mark.parametrize("as_binary", [False, True])
    async def test_git_applies_the_patch(self, api: Api, tmp_path: Path, as_binary: bool) -> None:
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
    async def test_json_answer(self, api: Api, accept: str) -> None:
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
    async def test_text_answer(self, api: Api, accept: str | None) -> None:
        job_id = await ended(api)
        await keep(api, job_id)
        headers = BEARER if accept is None else {**BEARER, "Accept": accept}
        response = await api.call("GET", f"/jobs/{job_id}/patch", headers=headers)
        assert response.headers["content-type"] == "text/x-patch; charset=utf-8"

    @pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
    async def test_live_job(self, api: Api, status: JobStatus) -> None:
        job_id = await ended(api, status, phase=Phase.WORKING)
        await keep(api, job_id)
        assert await api.refusal(409, "GET", f"/jobs/{job_id}/patch") == (
            "The job has not ended yet. Try again when it has."
        )

    async def test_job_that_is_cleaning_up(self, api: Api) -> None:
        job_id = await ended(api, JobStatus.CANCELLED, phase=Phase.CLEANING_UP)
        path = f"/jobs/{job_id}/patch"
        assert await api.refusal(409, "GET", path) == (
            "The job is still cleaning up. Try again in a moment."
        )
        await keep(api, job_id)
        assert (await api.call("GET", path)).status_code == 200

    async def test_job_that_delivered_its_work(self, api: Api) -> None:
        url = "https://github.test/acme/shop/pull/7"
        job_id = await ended(
            api, JobStatus.COMPLETED, outcome=Outcome.PULL_REQUEST, pr_url=url, pr_number=7
        )
        assert await api.refusal(404, "GET", f"/jobs/{job_id}/patch") == (
            f"The job delivered all its work in the pull request {url}."
        )

    @pytest.mark.parametrize("outcome", [Outcome.NO_CHANGES, Outcome.ANSWERED])
    async def test_job_without_changes(self, api: Api, outcome: Outcome) -> None:
        job_id = await ended(api, JobStatus.COMPLETED, outcome=outcome)
        assert await api.refusal(404, "GET", f"/jobs/{job_id}/patch") == (
            "The job completed without changes, so it has no undelivered work."
        )

    @pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
    async def test_expired_work(self, api: Api, status: JobStatus) -> None:
        job_id = await ended(api, status)
        await keep(api, job_id)
        await api.store.forget_work(later(1), ())
        assert await api.refusal(404, "GET", f"/jobs/{job_id}/patch") == (
            "No undelivered work is kept for this job: it produced none, its host has not saved "
            "it yet, or it has expired (KEEP_WORK_DAYS). Retry the job."
        )

    @pytest.mark.parametrize("headers", [BEARER, JSON])
    async def test_patch_that_is_too_large(self, api: Api, headers: dict[str, str]) -> None:
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

    async def test_failed_publish_only_retry_names_the_producer(self, api: Api) -> None:
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
        ("status", "phase", "code", "message"),
        [
            (JobStatus.QUEUED, Phase.WAITING_FOR_SLOT, 409, "has not ended yet"),
            (JobStatus.FAILED, Phase.CLEANING_UP, 409, "still cleaning up"),
            (JobStatus.COMPLETED, None, 404, "delivered all its work"),
        ],
    )
    async def test_publish_only_retry_in_another_state(
        self, api: Api, status: JobStatus, phase: Phase | None, code: int, message: str
    ) -> None:
        original = await ended(api)
        await keep(api, original)
        [retry] = await publications(api, original, count=1)
        await api.change_job(retry, status=status, phase=phase, pr_url="https://github.test/1")
        assert message in await api.refusal(code, "GET", f"/jobs/{retry}/patch")
