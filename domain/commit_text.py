"""The titles of commits and pull requests, and the message of commits."""

from __future__ import annotations

from domain.jobs import Job

MAX_SUBJECT_CHARACTERS = 72
"""The usual limit for the first line of a commit message."""


def subject(job: Job) -> str:
    """Return the job's title or the first line of its prompt, cut to 72 characters."""
    text = job.title or next((line for line in job.prompt.splitlines() if line.strip()), "")
    line = " ".join(text.split()) or f"Changes on {job.branch_name}"
    if len(line) <= MAX_SUBJECT_CHARACTERS:
        return line
    return line[: MAX_SUBJECT_CHARACTERS - 1].rstrip() + "…"


def commit_message(job: Job) -> str:
    """Return the message of the commit for the changes that Claude did not commit."""
    return f"{subject(job)}\n\nJob: {job.id}\n"
