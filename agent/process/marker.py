"""The environment variable that identifies the processes of a run."""

from __future__ import annotations

from dataclasses import dataclass

MARKER_NAME = "ORCHESTRATOR_RUN"


@dataclass(frozen=True, slots=True)
class Marker:
    """The run and the worker process that a process belongs to; inherited by its children."""

    data_id: str
    boot_id: str
    job_id: str

    def __str__(self) -> str:
        return f"{self.data_id}/{self.boot_id}/{self.job_id}"

    @classmethod
    def parse(cls, value: str) -> Marker | None:
        """Parse the output of `str`; None for any other text."""
        parts = value.split("/")
        return cls(*parts) if len(parts) == 3 and all(parts) else None

    def __post_init__(self) -> None:
        if any(not part or "/" in part for part in (self.data_id, self.boot_id, self.job_id)):
            raise ValueError("The parts of a run's marker must not be empty or contain a slash.")
