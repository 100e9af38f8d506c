"""Errors and failure codes: words that are stored and shown, so they keep their form."""

from __future__ import annotations

import pickle
import re

import pytest

from domain import errors
from domain.errors import JobFailure, OrchestratorError
from domain.failures import Clock, FailureCode

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("entry", [*FailureCode, *Clock])
def test_every_entry_says_what_happened_and_what_to_do(entry: FailureCode | Clock) -> None:
    for text in (entry.meaning, entry.remedy):
        assert re.fullmatch(r"[A-Z].*\w\.", text), text
        assert "  " not in text
        assert "|" not in text
    assert entry.sentence == f"{entry.meaning} {entry.remedy}"
    assert isinstance(entry.retryable, bool)


@pytest.mark.parametrize("code", [*FailureCode, *Clock])
def test_an_entry_is_found_again_by_what_is_stored(code: FailureCode | Clock) -> None:
    assert code.value == code.name.lower()
    assert type(code)(code.value) is code  # type: ignore[call-arg]
    assert f"{code}" == str(code) == code.value
    assert pickle.loads(pickle.dumps(code)) is code


def test_codes_and_sentences_are_told_apart() -> None:
    assert len(set(FailureCode)) == len({code.value for code in FailureCode}) == len(FailureCode)
    assert len({code.meaning for code in FailureCode}) == len(FailureCode)
    assert len({clock.meaning for clock in Clock}) == len(Clock)


def test_an_unknown_code() -> None:
    with pytest.raises(ValueError, match="'nope' is not a valid FailureCode"):
        FailureCode("nope")  # type: ignore[call-arg]


@pytest.mark.parametrize("code", FailureCode)
def test_a_failure_without_words_has_those_of_its_code(code: FailureCode) -> None:
    failure = JobFailure(code)
    assert failure.message == str(failure) == code.sentence
    assert failure.transient is False
    assert JobFailure(code, "Other words.").message == "Other words."


def test_every_error_can_be_caught_as_one_of_ours() -> None:
    ours = [kind for kind in KINDS if issubclass(kind, Exception)]
    assert len(ours) > 8
    assert all(issubclass(kind, OrchestratorError) for kind in ours)


def test_every_error_is_in_the_tree_that_the_module_shows() -> None:
    shown = set(re.findall(r"(?:├──|└──) (\w+)", errors.__doc__ or ""))
    assert shown == {
        kind.__name__
        for kind in KINDS
        if issubclass(kind, OrchestratorError) and kind is not OrchestratorError
    }
