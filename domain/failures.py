"""Why a job failed: one closed list, each entry with what happened and what to do.

`docs/failures.md` is made of it: `make docs`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class _Explained(StrEnum):
    """A stored word, explained to the person who posted the job.

    `meaning` is what happened and `remedy` what to do, each in complete sentences; `retryable` says
    whether posting the same job again can succeed without anybody changing anything first.
    """

    meaning: str
    remedy: str
    retryable: bool

    def __new__(cls, value: str, meaning: str, remedy: str, retryable: bool) -> Self:
        """Attach the explanation to the stored value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        member.retryable = retryable
        return member

    @property
    def sentence(self) -> str:
        """What happened and what to do."""
        return f"{self.meaning} {self.remedy}"


class TimeLimit(_Explained):
    """The time limits of a job; the value is stored in `agent_jobs.clock` when one runs out.

    `sentence` says to the person who posted the job what ran out, and what to do.
    """

    QUEUE = (
        "queue",
        "The job waited for a slot longer than QUEUE_TIMEOUT_MINUTES allows.",
        "Retry it when the queue is shorter, raise MAX_CONCURRENT_JOBS, or add a worker.",
        True,
    )
    SILENCE = (
        "silence",
        "Claude neither said anything nor used the processor for as long as "
        "SILENCE_TIMEOUT_MINUTES allows, so it was stopped.",
        "Retry the job; if it falls silent again, its transcript shows what Claude waited for.",
        True,
    )
    TURN = (
        "turn",
        "Claude worked on one turn longer than TURN_TIMEOUT_MINUTES allows, so it was stopped.",
        "Ask for less in one job or message, or raise the limit.",
        False,
    )
    JOB = (
        "job",
        "The job held a machine longer than its timeoutMinutes, or JOB_TIMEOUT_MINUTES, allows.",
        "Ask for less, or post it with a longer timeoutMinutes.",
        False,
    )
    IDLE = (
        "idle",
        "No message came within TASK_IDLE_TIMEOUT_MINUTES, so the conversation was ended.",
        "Post a new job, or raise the limit.",
        False,
    )


class FailureCode(_Explained):
    """The value stored in `agent_jobs.failure_code`."""

    REPOSITORY_NOT_FOUND = (
        "repository_not_found",
        "The repository does not exist, or the GitHub token may not see it.",
        "Check the owner and name, and that the token has access to it.",
        False,
    )
    REPOSITORY_EMPTY = (
        "repository_empty",
        "The repository has no commit to start from.",
        "Push a first commit to its default branch.",
        False,
    )
    BASE_BRANCH_NOT_FOUND = (
        "base_branch_not_found",
        "The branch to start from does not exist on the remote.",
        "Correct the job's baseBranch, or the repository's default branch if the job names none.",
        False,
    )
    GITHUB_TOKEN_MISSING = (
        "github_token_missing",
        "No GITHUB_TOKEN is configured, so the repository cannot be fetched or pushed.",
        "Set it and restart.",
        False,
    )
    GITHUB_AUTHENTICATION = (
        "github_authentication",
        "GitHub refused the token.",
        "Set a valid GITHUB_TOKEN and restart.",
        False,
    )
    GITHUB_PERMISSION = (
        "github_permission",
        "The GitHub token may not do this.",
        "Give it contents and pull requests, read and write, for this repository; for changes of "
        "workflow files also workflows.",
        False,
    )
    GITHUB_REFUSED = (
        "github_refused",
        "GitHub refused the pull request.",
        "Correct what GitHub gives as the reason in the error text, then retry the job with `from` "
        "set to publish.",
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
        "Retry the job; if it fails again, the error text has what git printed.",
        True,
    )
    BRANCH_IN_USE = (
        "branch_in_use",
        "The branch is checked out by another job that has not ended.",
        "Wait for that job, or use another branch name.",
        True,
    )
    BRANCH_CONFLICT = (
        "branch_conflict",
        "The branch name clashes with an existing branch (a branch `a` forbids `a/b`), or is the "
        "branch that pull requests are merged into.",
        "Use another name.",
        False,
    )
    BRANCH_MOVED = (
        "branch_moved",
        "Somebody pushed to the branch while the job worked on it, so nothing was overwritten.",
        "Retry the job to start from the new state.",
        True,
    )
    PUSH_REJECTED = (
        "push_rejected",
        "The remote refused the push, by a branch protection rule or a hook.",
        "Its reason is in the error text. Change the rule, then retry the job with `from` set to "
        "publish.",
        False,
    )
    GIT_LFS_MISSING = (
        "git_lfs_missing",
        "The repository keeps files in Git LFS, and git-lfs is not installed on the worker.",
        "Install it there.",
        False,
    )
    KEPT_WORK_GONE = (
        "kept_work_gone",
        "The work is no longer kept, so it cannot be published.",
        "Post a new job; undelivered work is kept for KEEP_WORK_DAYS.",
        False,
    )
    KEPT_WORK_ELSEWHERE = (
        "kept_work_elsewhere",
        "The work is only on another machine, which did not take the job.",
        "Retry the job with `from` set to publish when that machine is back.",
        True,
    )
    TASK_CHANGED_FILES = (
        "task_changed_files",
        "Files changed in the worktree of a task job, which must only read. Nothing was published.",
        "Find the tool or MCP server that writes there, or post a code job.",
        False,
    )
    DISK_FULL = (
        "disk_full",
        "The worker has no disk space left.",
        "Free some, then retry the job.",
        False,
    )
    CLAUDE_NOT_FOUND = (
        "claude_not_found",
        "The Claude Code executable is not on the worker.",
        "Install it, or set CLAUDE_BIN.",
        False,
    )
    CLAUDE_AUTHENTICATION = (
        "claude_authentication",
        "Claude is not logged in, or its credential was refused.",
        "Set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN and restart.",
        False,
    )
    CLAUDE_BILLING = (
        "claude_billing",
        "The Anthropic account has no credit left.",
        "Add some, then retry the job.",
        False,
    )
    USAGE_LIMIT = (
        "usage_limit",
        "The usage limit of the Claude credential is reached.",
        "Retry the job after the reset time in the error text.",
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
        "The model does not exist, or the credential may not use it.",
        "Correct the job's model, or CLAUDE_MODEL if the job names none.",
        False,
    )
    PROMPT_TOO_LONG = (
        "prompt_too_long",
        "The conversation no longer fits the model's context.",
        "Post a shorter prompt, or use a model with a larger context.",
        False,
    )
    MAX_TURNS = (
        "max_turns",
        "Claude reached the turn limit before it was done.",
        "Raise the job's maxTurns, or CLAUDE_MAX_TURNS if the job names none; or ask for less.",
        False,
    )
    BUDGET_REACHED = (
        "budget_reached",
        "The job reached its budget before it was done.",
        "Raise its maxBudgetUsd, or ask for less.",
        False,
    )
    SANDBOX_UNAVAILABLE = (
        "sandbox_unavailable",
        "Claude was not started, because this host cannot isolate it as SANDBOX says.",
        "Run `orchestrator doctor` on that host, and repair the cause that it names. Or set "
        "SANDBOX=off to let Claude's commands act as the worker's user. Then retry the job.",
        False,
    )
    JOB_LIMIT_EXCEEDED = (
        "job_limit_exceeded",
        "The job was stopped, because it used more of its host than a SANDBOX_ limit allows.",
        "The error text names the limit. Ask for less, or raise the limit; then retry the job.",
        False,
    )
    CLAUDE_FAILED = (
        "claude_failed",
        "Claude Code ended with an error.",
        "Retry the job; if it fails again, the error text has what Claude reported.",
        True,
    )
    SESSION_LOST = (
        "session_lost",
        "Claude cannot take its session up again: the transcript is damaged.",
        "Retry the job, which begins anew.",
        True,
    )
    TIMED_OUT = (
        "timed_out",
        "The job ran into a time limit.",
        "Which one is in the error text. Raise it, or ask for less.",
        False,
    )
    HOST_LOST = (
        "host_lost",
        "The machine that ran the job was lost too often.",
        "Retry the job.",
        True,
    )
    WORKFLOW_ENDED = (
        "workflow_ended",
        "The job's workflow was ended from outside.",
        "Retry the job.",
        True,
    )
    INTERNAL = (
        "internal",
        "The orchestrator failed in a way it does not know.",
        "The worker's log has the details. Retry the job; if it fails again, report them.",
        True,
    )
