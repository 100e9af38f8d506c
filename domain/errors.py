"""The errors of the product. Their messages are safe to show to a caller.

    OrchestratorError
    ├── InvalidRequest         the request is malformed or impossible                 (HTTP 400)
    ├── NotFound               the resource does not exist                            (HTTP 404)
    ├── Conflict               it conflicts with an existing resource or operation    (HTTP 409)
    ├── TooLarge               the body is over the limit                             (HTTP 413)
    ├── KeyReused              the Idempotency-Key was used for another request       (HTTP 422)
    ├── DependencyFailed       an external system reported a failure                  (HTTP 500)
    │   └── OutcomeUnknown     it did not answer; the request may still succeed       (HTTP 500)
    ├── DependencyUnavailable  an external system did not answer                      (HTTP 503)
    ├── LeaseLost              the writer no longer holds the job's slot
    ├── JobEnded               the job has a final status
    └── JobFailure             a job cannot continue; carries its `FailureCode`

Messages are complete sentences that say what to do. Causes are logged through `raise ... from`.
"""

from __future__ import annotations

from datetime import datetime

from domain.failures import FailureCode, TimeLimit


class OrchestratorError(Exception):
    """The base of all errors that this project raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(OrchestratorError):
    """The request is malformed, or impossible in the current state of its resource."""


class NotFound(OrchestratorError):
    """The resource of the request does not exist."""


class Conflict(OrchestratorError):
    """The request conflicts with an existing resource or a running operation."""


class TooLarge(OrchestratorError):
    """The request body is over the limit."""


class KeyReused(OrchestratorError):
    """The Idempotency-Key was used for a request with another body."""


class DependencyFailed(OrchestratorError):
    """An external system reported that it could not do what was asked.

    Args:
        message: what happened and what to do.
        system: `store`, `temporal`, `github`, `git` or `claude`.
    """

    def __init__(self, message: str, system: str) -> None:
        super().__init__(message)
        self.system = system


class OutcomeUnknown(DependencyFailed):
    """An external system did not answer in time. It may still execute the request."""


class DependencyUnavailable(OrchestratorError):
    """An external system did not answer. A later retry can succeed.

    Args:
        message: what happened and what to do.
        system: `store`, `temporal`, `github`, `git` or `claude`.
    """

    def __init__(self, message: str, system: str) -> None:
        super().__init__(message)
        self.system = system


class LeaseLost(OrchestratorError):
    """The writer no longer holds the job's slot and must stop without changing anything.

    Args:
        message: the refused operation.
        present: the current lease of the job; 0 if not known.
    """

    def __init__(self, message: str, present: int = 0) -> None:
        super().__init__(message)
        self.present = present


class JobEnded(OrchestratorError):
    """The job has a final status, so no more work may be done for it."""


class JobFailure(OrchestratorError):
    """A job cannot continue.

    Args:
        code: why, from the closed list.
        message: details, in a complete sentence. The code's own sentence is used if it is empty.
        transient: whether the same step may succeed when it is retried at once.
        clock: the time limit that ran out, with TIMED_OUT.
        resets_at: the end of the limit, with USAGE_LIMIT, if the API reported it.
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
    """Return the failure of a job that reached a time limit."""
    return JobFailure(FailureCode.TIMED_OUT, clock.sentence, clock=clock)
