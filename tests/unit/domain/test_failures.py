"""Failure codes and time limits."""

from __future__ import annotations

import pickle
import re
from collections import Counter

import pytest

from domain.failures import FailureCode, TimeLimit

ENTRIES = [*FailureCode, *TimeLimit]


def is_sentence(text: str) -> bool:
    one_line = re.fullmatch(r"[A-Z].*\w\.", text)
    return one_line is not None and "  " not in text and "|" not in text


def test_every_entry_has_a_meaning_and_a_remedy() -> None:
    unclear = [
        entry
        for entry in ENTRIES
        if not is_sentence(entry.meaning)
        or not is_sentence(entry.remedy)
        or entry.sentence != f"{entry.meaning} {entry.remedy}"
        or not isinstance(entry.retryable, bool)
    ]
    assert unclear == []


def test_every_entry_is_found_by_its_value() -> None:
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


def test_an_unknown_code_raises() -> None:
    with pytest.raises(ValueError, match="'nope' is not a valid FailureCode"):
        FailureCode("nope")  # type: ignore[call-arg]
