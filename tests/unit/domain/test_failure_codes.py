"""Errors and failure codes: words that are stored and shown, so they keep their form."""

from __future__ import annotations

import pickle
import re
from collections import Counter

import pytest

from domain import errors
from domain.errors import JobFailure, OrchestratorError
from domain.failures import FailureCode, TimeLimit

ENTRIES = [*FailureCode, *TimeLimit]
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


def is_sentence(text: str) -> bool:
    one_line = re.fullmatch(r"[A-Z].*\w\.", text)
    return one_line is not None and "  " not in text and "|" not in text


def test_every_entry_says_what_happened_and_what_to_do() -> None:
    unclear = [
        entry
        for entry in ENTRIES
        if not is_sentence(entry.meaning)
        or not is_sentence(entry.remedy)
        or entry.sentence != f"{entry.meaning} {entry.remedy}"
        or not isinstance(entry.retryable, bool)
    ]
    assert unclear == []


def test_every_entry_is_found_by_its_stored_value() -> None:
    lost = [
        entry
        for entry in ENTRIES
        if entry.value != entry.name.lower()
        or str(entry) != entry.value
        or f"{entry}" != entry.value
        or type(entry)(entry.value) is not entry
        or pickle.loads(pickle.dumps(entry)) is not entry
    ]
    assert lost == []
    members = {**FailureCode.__members__, **TimeLimit.__members__}
    assert [name for name, entry in members.items() if name != entry.name] == [], "aliases"


def test_meanings_are_different() -> None:
    for entries in (FailureCode, TimeLimit):
        meanings = Counter(entry.meaning for entry in entries)
        assert [meaning for meaning, count in meanings.items() if count > 1] == []


def test_an_unknown_code() -> None:
    with pytest.raises(ValueError, match="'nope' is not a valid FailureCode"):
        FailureCode("nope")  # type: ignore[call-arg]


def test_a_failure_without_message_has_the_sentence_of_its_code() -> None:
    failures = [JobFailure(code) for code in FailureCode]
    wrong = [each.code for each in failures if not each.message == str(each) == each.code.sentence]
    assert wrong == []
    assert [each.code for each in failures if each.transient] == []
    assert JobFailure(FailureCode.HOST_LOST, "Other words.").message == "Other words."


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
