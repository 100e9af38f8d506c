"""Domain words as the JSON objects of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from domain.failures import FailureCode
from domain.job_details import JobDetails, KeptWork, QueueEntry
from domain.jobs import Job
from domain.messages import Message
from domain.repositories import ClientDetails, Repository
from domain.timestamps import utc_now

Json = dict[str, Any]


def iso(moment: datetime | None) -> str | None:
    """Return RFC 3339 text in UTC with a final Z, or None."""
    return None if moment is None else moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def repository_view(repository: Repository) -> Json:
    """Return a repository's whole row."""
    return {
        "id": repository.id,
        "client_id": repository.client_id,
        "provider": repository.provider,
        "owner_name": repository.owner_name,
        "repo_name": repository.repo_name,
        "default_branch": repository.default_branch,
        "url": repository.url,
        "created_at": iso(repository.created_at),
        "updated_at": iso(repository.updated_at),
    }


def client_view(details: ClientDetails) -> Json:
    """Return a client with its first repository."""
    first = details.repositories[0] if details.repositories else None
    return {
        "id": details.client.id,
        "name": details.client.name,
        "repository": repository_view(first) if first else None,
    }


def client_list_view(details: ClientDetails) -> Json:
    """Return a client with all its repositories, in short."""
    return {
        "id": details.client.id,
        "name": details.client.name,
        "repositories": [_short(repository) for repository in details.repositories],
    }


def job_view(details: JobDetails) -> Json:
    """Return a job's whole row with its client, feature and repository."""
    job = details.job
    feature = {"id": job.feature_id, "title": details.feature_title} if job.feature_id else None
    return {
        **_row(job),
        "client": {"id": job.client_id, "name": details.client_name},
        "feature": feature,
        "repository": _short(details.repository) if details.repository else None,
    }


def message_view(message: Message) -> Json:
    """Return a line of a transcript."""
    return {
        "id": message.id,
        "job_id": message.job_id,
        "seq": message.seq,
        "type": message.type,
        "content": message.content,
        "created_at": iso(message.created_at),
    }


def kept_patch_view(work: KeptWork, patch: str, branch_name: str) -> Json:
    """Return undelivered work whose `patch` is stored."""
    return {
        "id": work.job_id,
        "base_sha": work.base_sha,
        "head_sha": work.head_sha,
        "branch_name": branch_name,
        "patch": patch,
        "created_at": iso(work.created_at),
    }


def running_view(entry: QueueEntry) -> Json:
    """Return a job that holds a slot, or waits for its user."""
    return {
        **_entry(entry),
        "phase": entry.phase,
        "started_at": iso(entry.started_at),
        "running_for": human_duration(entry.started_at),
    }


def queued_view(entry: QueueEntry, position: int) -> Json:
    """Return a job that waits for a slot; `position` counts from 1."""
    return {**_entry(entry), "created_at": iso(entry.created_at), "position": position}


def _entry(entry: QueueEntry) -> Json:
    return {
        "id": entry.id,
        "title": entry.title,
        "client_id": entry.client_id,
        "branch_name": entry.branch_name,
        "job_type": entry.job_type,
    }


def _short(repository: Repository) -> Json:
    return {
        "id": repository.id,
        "owner_name": repository.owner_name,
        "repo_name": repository.repo_name,
        "default_branch": repository.default_branch,
    }


def _row(job: Job) -> Json:
    usage, options = job.usage, job.options
    return {
        "id": job.id,
        "client_id": job.client_id,
        "feature_id": job.feature_id,
        "repository_id": job.repository_id,
        "created_by_team_member_id": job.created_by_team_member_id,
        "retry_of": job.retry_of,
        "retry_from": job.retry_from,
        "title": job.title,
        "job_type": job.job_type,
        "status": job.status,
        "phase": job.phase,
        "outcome": job.outcome,
        "failure_code": job.failure_code,
        "error": job.error,
        "failure": _failure(job),
        "prompt": job.prompt,
        "result": job.result,
        "branch_name": job.branch_name,
        "base_branch": options.base_branch,
        "draft": options.draft,
        "labels": options.labels,
        "reviewers": options.reviewers,
        "base_sha": job.base_sha,
        "head_sha": job.head_sha,
        "pr_url": job.pr_url,
        "pr_number": job.pr_number,
        "files_changed": job.files_changed,
        "code_branch_id": job.code_branch_id,
        "code_pull_request_id": job.code_pull_request_id,
        "host": job.host,
        "worktree_path": job.worktree_path,
        "pid": job.pid,
        "lease": job.lease,
        "attempt": job.attempt,
        "session_id": job.session_id,
        "model": job.model,
        "requested_model": options.model,
        "max_turns": options.max_turns,
        "max_budget_usd": options.max_budget_usd,
        "timeout_minutes": options.timeout_minutes,
        "exit_code": job.exit_code,
        "num_turns": usage.turns,
        "total_cost_usd": usage.cost_usd,
        "cost": _cost(job),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_creation_tokens": usage.cache_creation_tokens,
        "claude_seconds": job.claude_seconds,
        "priority": job.priority,
        "created_at": iso(job.created_at),
        "queued_at": iso(job.queued_at),
        "started_at": iso(job.started_at),
        "resumes_at": iso(job.resumes_at),
        "completed_at": iso(job.completed_at),
        "updated_at": iso(job.updated_at),
    }


def _failure(job: Job) -> Json | None:
    """Return why a job failed; a time limit's remedy is that of its clock."""
    code = job.failure_code
    if code is None:
        return None
    clock = job.clock if code is FailureCode.TIMED_OUT else None
    explained = clock or code
    return {
        "code": code,
        "message": job.error or explained.meaning,
        "remedy": explained.remedy,
        "retryable": explained.retryable,
        **({"clock": clock} if clock else {}),
    }


def _cost(job: Job) -> Json | None:
    """Return what Claude reported it cost; an estimate where a subscription pays."""
    if job.usage.cost_usd is None:
        return None
    kind = "estimated" if job.cost_is_estimate else "reported"
    return {"usd": job.usage.cost_usd, "kind": kind}


def human_duration(since: datetime | None) -> str | None:
    """Return the time since then as people say it: `59s`, `5m 3s`, `2h 5m`."""
    if since is None:
        return None
    seconds = max(0, int((utc_now() - since).total_seconds()))
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"{hours}h {minutes % 60}m"
    return f"{minutes}m {seconds % 60}s" if minutes else f"{seconds}s"
