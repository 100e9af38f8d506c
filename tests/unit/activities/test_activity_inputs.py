"""Every activity takes one input and returns one result, both named after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from activities.claude import ClaudeActivities
from activities.job_records import RecordActivities
from activities.pull_requests import PullRequestActivities
from activities.slots import SlotActivities
from activities.withdrawals import WithdrawalActivities
from activities.workspaces import WorkspaceActivities

CLASSES = (
    ClaudeActivities,
    PullRequestActivities,
    RecordActivities,
    SlotActivities,
    WithdrawalActivities,
    WorkspaceActivities,
)


def activities_of(cls: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in vars(cls).items()
        if hasattr(method, "__temporal_activity_definition")
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_inputs_and_results_are_named_after_the_activity(cls: type) -> None:
    activities = activities_of(cls)
    assert activities
    for name, method in activities.items():
        hints = get_type_hints(method)
        result = hints.pop("return")
        verb = name.title().replace("_", "")
        assert [hint.__name__ for hint in hints.values()] == [f"{verb}Input"], name
        assert result is type(None) or result.__name__ == f"{verb}Result", name
