"""The options of a job as JSON: only the values that differ from the defaults."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from domain.jobs import JobOptions
from store.codec.values import JsonObject, column_value

_DEFAULTS = JobOptions()

_KINDS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "max_turns": int,
    "max_budget_usd": (int, float),
    "timeout_minutes": int,
    "base_branch": str,
    "draft": bool,
    "labels": list,
    "reviewers": list,
}
"""Option name to the type of its value in JSON."""


def options_to_json(options: JobOptions) -> JsonObject | None:
    """Return the values that differ from the defaults, or None."""
    values = {field.name: getattr(options, field.name) for field in fields(JobOptions)}
    chosen = {
        name: _json_value(value)
        for name, value in values.items()
        if value != getattr(_DEFAULTS, name)
    }
    return chosen or None


def _json_value(value: Any) -> Any:
    return [*map(column_value, value)] if isinstance(value, tuple) else column_value(value)


def options_from_json(stored: JsonObject | None) -> JobOptions:
    """Return the stored options. Options and types of a newer version are ignored."""
    values: dict[str, Any] = {
        name: tuple(filter(_is_text, value)) if isinstance(value, list) else value
        for name, value in (stored or {}).items()
        if name in _KINDS and isinstance(value, _KINDS[name])
    }
    return JobOptions(**values)


def _is_text(item: object) -> bool:
    return isinstance(item, str)
