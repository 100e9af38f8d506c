"""What can go wrong, as exceptions whose message is safe to show to a caller.

    OrchestratorError
    ├── InvalidRequest         the caller sent something that cannot be done          (HTTP 400)
    ├── NotFound               the named thing does not exist                         (HTTP 404)
    ├── Conflict               it clashes with something that exists or is under way  (HTTP 409)
    ├── TooLarge               the body is over the limit                             (HTTP 413)
    ├── KeyReused              the Idempotency-Key stands for another request         (HTTP 422)
    ├── DependencyFailed       an outside system answered, but did not do it          (HTTP 500)
    │   └── OutcomeUnknown     it was asked, and may have done it all the same        (HTTP 500)
    ├── DependencyUnavailable  an outside system did not answer                       (HTTP 503)
    ├── LeaseLost              the writer no longer holds the job's slot
    ├── JobEnded               the job has a final status already
    └── JobFailure             a job cannot go on; carries its `FailureCode`

Messages are complete sentences that say what to do. Causes go to the log through `raise ... from`.
"""

from __future__ import annotations

from datetime import datetime

from domain.failures import FailureCode, TimeLimit


class OrchestratorError(Exception):
    """Base of every error this project raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(OrchestratorError):
    """The request is malformed, or not possible in the present state of what it names."""


class NotFound(OrchestratorError):
    """The thing the request names does not exist."""


class Conflict(OrchestratorError):
    """The request clashes with something that exists or is under way."""


class TooLarge(OrchestratorError):
    """The request body is over the limit."""


class KeyReused(OrchestratorError):
    """The Idempotency-Key stands for a request with another body."""


class DependencyFailed(OrchestratorError):
    """An outside system answered that it could not do what was asked.

    Args:
        message: what happened and what to do.
        system: `store`, `temporal`, `github`, `git` or `claude`.
    """

    def __init__(self, message: str, system: str) -> None:
        super().__init__(message)
        self.system = system


class OutcomeUnknown(DependencyFailed):
    """An outside system was asked and did not answer in time; it may do it all the same."""


class DependencyUnavailable(OrchestratorError):
    """An outside system did not answer; trying again later can help.

    Args:
        message: what happened and what to do.
        system: `store`, `temporal`, `github`, `git` or `claude`.
    """

    def __init__(self, message: str, system: str) -> None:
        super().__init__(message)
        self.system = system


class LeaseLost(OrchestratorError):
    """The writer no longer holds the job's slot, so it must stop without changing anything.

    Args:
        message: what was refused.
        present: the lease the job has now, where it is known.
    """

    def __init__(self, message: str, present: int = 0) -> None:
        super().__init__(message)
        self.present = present


class JobEnded(OrchestratorError):
    """The job has a final status, so nothing more may be done for it."""


class JobFailure(OrchestratorError):
    """A job cannot go on.

    Args:
        code: why, from the closed list.
        message: the particulars, in a sentence; the code's own sentence when empty.
        transient: whether the same step, repeated in a moment, may succeed.
        clock: which time limit ran out, with TIMED_OUT.
        resets_at: when the limit ends, with USAGE_LIMIT, where the API told it.
    """

    def __init__(
        self,
        code: FailureCode,
        message: str = "",
        *,
        transient: bool = False,
        clock: TimeLimit | None = None,
        resets_at: datetime | None = None,
    ) -> None:
        super().__init__(message or code.sentence)
        self.code = code
        self.transient = transient
        self.clock = clock
        self.resets_at = resets_at


def timed_out(clock: TimeLimit) -> JobFailure:
    """Return the failure of a job of which a clock has run out."""
    return JobFailure(FailureCode.TIMED_OUT, clock.sentence, clock=clock)
