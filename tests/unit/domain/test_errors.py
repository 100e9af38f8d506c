"""The errors of the product."""

from __future__ import annotations

import re

from domain import errors
from domain.errors import JobFailure, OrchestratorError
from domain.failures import FailureCode

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


def test_a_failure_without_message_has_the_sentence_of_its_code() -> None:
    failures = [JobFailure(code) for code in FailureCode]
    wrong = [each.code for each in failures if not each.message == str(each) == each.code.sentence]
    assert wrong == []
    assert [each.code for each in failures if each.transient] == []
    assert JobFailure(FailureCode.HOST_LOST, "Other words.").message == "Other words."


def test_every_error_is_an_orchestrator_error() -> None:
    ours = [kind for kind in KINDS if issubclass(kind, Exception)]
    assert len(ours) > 8
    assert all(issubclass(kind, OrchestratorError) for kind in ours)


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    shown = set(re.findall(r"(?:├──|└──) (\w+)", errors.__doc__ or ""))
    assert shown == {
        kind.__name__
        for kind in KINDS
        if issubclass(kind, OrchestratorError) and kind is not OrchestratorError
    }
