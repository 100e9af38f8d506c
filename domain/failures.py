"""Why a job failed: a closed list. Each entry has a meaning and a remedy.

`make docs` writes `docs/failures.md` from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class _Explained(StrEnum):
    """A stored value with an explanation for the person who posted the job.

    `meaning` says what happened and `remedy` what to do, each in complete sentences. `retryable`
    means that a retry can succeed although nothing was changed.
    """

    meaning: str
    remedy: str
    retryable: bool

    def __new__(cls, value: str, meaning: str, remedy: str, retryable: bool) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        member.retryable = retryable
        return member

    @property
    def sentence(self) -> str:
        """The meaning and the remedy."""
        return f"{self.meaning} {self.remedy}"


class TimeLimit(_Explained):
    """A time limit of a job. Its value is stored in `agent_jobs.clock` when it runs out."""

    QUEUE = (
        "queue",
        "The job waited for a slot longer than QUEUE_TIMEOUT_MINUTES allows.",
        "Retry the job when the queue is shorter. To shorten it, raise MAX_CONCURRENT_JOBS or "
        "add a worker.",
        True,
    )
    SILENCE = (
        "silence",
        "Claude was stopped because it printed nothing and used no processor time for "
        "SILENCE_TIMEOUT_MINUTES.",
        "Retry the job. If it happens again, the last messages of the job show the command "
        "that Claude waited for.",
        True,
    )
    TURN = (
        "turn",
        "Claude was stopped because one turn took longer than TURN_TIMEOUT_MINUTES allows.",
        "Ask for less in one job or message, or raise the limit.",
        False,
    )
    JOB = (
        "job",
        "The job held a host longer than its timeoutMinutes, or JOB_TIMEOUT_MINUTES, allows.",
        "Post a new job that asks for less, or one with a longer timeoutMinutes.",
        False,
    )
    IDLE = (
        "idle",
        "The conversation was ended because no message came for TASK_IDLE_TIMEOUT_MINUTES.",
        "Post a new job. To keep conversations open longer, raise the limit.",
        False,
    )


class FailureCode(_Explained):
    """A value of `agent_jobs.failure_code`."""

    REPOSITORY_NOT_FOUND = (
        "repository_not_found",
        "The repository does not exist, or the GitHub token has no access to it.",
        "Check the repository's owner and name, and give the token access to it. Then retry "
        "the job.",
        False,
    )
    REPOSITORY_EMPTY = (
        "repository_empty",
        "The repository has no commits.",
        "Push a first commit to its default branch, then retry the job.",
        False,
    )
    BASE_BRANCH_NOT_FOUND = (
        "base_branch_not_found",
        "The branch that the job starts from does not exist on the remote.",
        "Push that branch and retry the job, or post a new job with a baseBranch that exists.",
        False,
    )
    GITHUB_TOKEN_MISSING = (
        "github_token_missing",
        "GITHUB_TOKEN is not set, so the repository cannot be fetched or pushed.",
        "Set GITHUB_TOKEN and restart the worker. Then retry the job.",
        False,
    )
    GITHUB_AUTHENTICATION = (
        "github_authentication",
        "GitHub refused the token.",
        "Set GITHUB_TOKEN to a valid token and restart the worker. Then retry the job.",
        False,
    )
    GITHUB_PERMISSION = (
        "github_permission",
        "The GitHub token does not have a permission that the job needs.",
        "Give the token read and write access to contents and pull requests of this "
        "repository. Changes to workflow files also need the workflows permission. Then retry "
        "the job.",
        False,
    )
    GITHUB_REFUSED = (
        "github_refused",
        "GitHub refused the pull request.",
        "Fix the reason that GitHub gives in the error message. Then retry the job with "
        "`from` set to publish.",
        False,
    )
    GITHUB_UNAVAILABLE = (
        "github_unavailable",
        "GitHub did not answer, or asked to wait, for longer than the retries last.",
        "Retry the job later.",
        True,
    )
    GIT_FAILED = (
        "git_failed",
        "A git command failed.",
        "Retry the job. If it fails again, read the output of git in the error message.",
        True,
    )
    BRANCH_IN_USE = (
        "branch_in_use",
        "The branch is checked out by another job that has not ended.",
        "Retry the job when the other job has ended, or post a new job with another branchName.",
        True,
    )
    BRANCH_CONFLICT = (
        "branch_conflict",
        "The branch name conflicts with an existing branch (a branch `a` excludes `a/b`), or "
        "it is the target branch of pull requests.",
        "Post a new job with another branchName.",
        False,
    )
    BRANCH_MOVED = (
        "branch_moved",
        "The branch was changed on the remote while the job worked on it, so nothing was "
        "overwritten.",
        "Retry the job. It starts from the new state of the branch.",
        True,
    )
    PUSH_REJECTED = (
        "push_rejected",
        "The remote refused the push because of a branch protection rule or a hook.",
        "Fix the reason that the remote gives in the error message. Then retry the job with "
        "`from` set to publish.",
        False,
    )
    GIT_LFS_MISSING = (
        "git_lfs_missing",
        "The repository has files in Git LFS, and git-lfs is not installed on the worker's host.",
        "Install git-lfs on the host, then retry the job.",
        False,
    )
    KEPT_WORK_GONE = (
        "kept_work_gone",
        "The undelivered work has expired, so it cannot be published.",
        "Retry the job without `from`. Undelivered work is kept for KEEP_WORK_DAYS.",
        False,
    )
    KEPT_WORK_ELSEWHERE = (
        "kept_work_elsewhere",
        "The undelivered work is only on another host, which did not run this job.",
        "Retry the job with `from` set to publish when that host is back.",
        True,
    )
    TASK_CHANGED_FILES = (
        "task_changed_files",
        "A task job must only read, but files in its worktree changed. Nothing was published.",
        "Remove the tool or MCP server that writes files, or post a code job.",
        False,
    )
    DISK_FULL = (
        "disk_full",
        "The worker's host has no free disk space.",
        "Free disk space on the host, then retry the job.",
        False,
    )
    CLAUDE_NOT_FOUND = (
        "claude_not_found",
        "The Claude Code executable is not on the worker's host.",
        "Install Claude Code, or set CLAUDE_BIN to its path and restart the worker. Then "
        "retry the job.",
        False,
    )
    CLAUDE_AUTHENTICATION = (
        "claude_authentication",
        "Claude is not logged in, or its credential was refused.",
        "Set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN and restart the worker. Then retry "
        "the job.",
        False,
    )
    CLAUDE_BILLING = (
        "claude_billing",
        "The Anthropic account has no credit left.",
        "Add credit to the account, then retry the job.",
        False,
    )
    USAGE_LIMIT = (
        "usage_limit",
        "The usage limit of the Claude credential is reached.",
        "Retry the job after the limit resets. The error message gives the time if Claude "
        "reported it.",
        True,
    )
    CLAUDE_OVERLOADED = (
        "claude_overloaded",
        "Anthropic's servers were overloaded or unreachable for longer than the retries last.",
        "Retry the job later.",
        True,
    )
    MODEL_NOT_FOUND = (
        "model_not_found",
        "The model does not exist, or the Claude credential has no access to it.",
        "Post a new job with another model. If the job named none, correct CLAUDE_MODEL and "
        "restart the worker.",
        False,
    )
    PROMPT_TOO_LONG = (
        "prompt_too_long",
        "The conversation is longer than the model's context.",
        "Post a new job with a shorter prompt, or with a model that has a larger context.",
        False,
    )
    MAX_TURNS = (
        "max_turns",
        "Claude reached the limit on model calls before it was done.",
        "Post a new job with a higher maxTurns, or ask for less. If the job set no "
        "maxTurns, CLAUDE_MAX_TURNS is the limit.",
        False,
    )
    BUDGET_REACHED = (
        "budget_reached",
        "The job reached its budget before it was done.",
        "Post a new job with a higher maxBudgetUsd, or ask for less. If the job set "
        "no maxBudgetUsd, CLAUDE_MAX_BUDGET_USD is the limit.",
        False,
    )
    SANDBOX_UNAVAILABLE = (
        "sandbox_unavailable",
        "Claude was not started, because this host cannot isolate it as SANDBOX requires.",
        "Run `orchestrator doctor` on that host and fix the problem that it reports. Or set "
        "SANDBOX=off, which lets Claude's commands run as the worker's user. Then retry the "
        "job.",
        False,
    )
    JOB_LIMIT_EXCEEDED = (
        "job_limit_exceeded",
        "The job was stopped because it used more of its host than a SANDBOX_ limit allows.",
        "The error message names the limit. Ask for less in one job, or raise the limit. Then "
        "retry the job.",
        False,
    )
    CLAUDE_FAILED = (
        "claude_failed",
        "Claude Code ended with an error.",
        "Retry the job. If it fails again, read Claude's report in the error message.",
        True,
    )
    SESSION_LOST = (
        "session_lost",
        "Claude's session cannot be resumed, because its session file is damaged.",
        "Retry the job. It starts a new session.",
        True,
    )
    TIMED_OUT = (
        "timed_out",
        "The job reached a time limit.",
        "The error message names the limit. Raise it, or ask for less in one job.",
        False,
    )
    HOST_LOST = (
        "host_lost",
        "The host that ran the job was lost too often.",
        "Retry the job.",
        True,
    )
    WORKFLOW_ENDED = (
        "workflow_ended",
        "The job's workflow was ended in Temporal from outside the orchestrator.",
        "Retry the job.",
        True,
    )
    INTERNAL = (
        "internal",
        "The orchestrator failed with an unexpected error.",
        "Retry the job. If it fails again, report the error together with the worker's log.",
        True,
    )
