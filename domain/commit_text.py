"""Titles made from what a job was asked: of commits and pull requests."""

from __future__ import annotations

from domain.jobs import Job

MAX_SUBJECT_CHARACTERS = 72
"""The customary width of a commit's first line."""


def subject(job: Job) -> str:
    """Return one line of at most 72 characters: the job's title, else its prompt's first line."""
    text = job.title or next((line for line in job.prompt.splitlines() if line.strip()), "")
    line = " ".join(text.split()) or f"Changes on {job.branch_name}"
    if len(line) <= MAX_SUBJECT_CHARACTERS:
        return line
    return line[: MAX_SUBJECT_CHARACTERS - 1].rstrip() + "…"


def commit_message(job: Job) -> str:
    """Return the message of the commit that holds what Claude left uncommitted."""
    return f"{subject(job)}\n\nJob: {job.id}\n"
