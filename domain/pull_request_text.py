"""The body of a pull request."""

from __future__ import annotations

from domain.jobs import Job

MAX_BODY_CHARACTERS = 60_000
"""GitHub's limit is 65,536."""


def job_mark(job_id: str) -> str:
    """Return the line that identifies the pull request of a job."""
    return f"Job: `{job_id}`"


def body(job: Job) -> str:
    """Return Claude's description, the prompt as a quote, and the job's mark."""
    description = (job.result or "").strip() or "Claude left no description."
    prompt = "\n".join(f"> {line}" for line in job.prompt.strip().splitlines())
    mark = f"\n\n---\n\nMade by Claude Code. {job_mark(job.id)}\n"
    text = f"## What was done\n\n{description}\n\n## What was asked\n\n{prompt}"
    return text[: MAX_BODY_CHARACTERS - len(mark)] + mark
