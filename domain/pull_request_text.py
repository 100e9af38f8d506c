"""The text of a pull request."""

from __future__ import annotations

from domain.jobs import Job

MAX_BODY_CHARACTERS = 60_000
"""GitHub refuses more than 65,536."""


def job_mark(job_id: str) -> str:
    """Return the line by which a job knows its own pull request."""
    return f"Job: `{job_id}`"


def body(job: Job) -> str:
    """Return what the job was asked, what Claude says it did, and the job's mark."""
    done = (job.result or "").strip() or "Claude left no description."
    asked = "\n".join(f"> {line}" for line in job.prompt.strip().splitlines())
    mark = f"\n\n---\n\nMade by Claude Code. {job_mark(job.id)}\n"
    text = f"## What was done\n\n{done}\n\n## What was asked\n\n{asked}"
    return text[: MAX_BODY_CHARACTERS - len(mark)] + mark
