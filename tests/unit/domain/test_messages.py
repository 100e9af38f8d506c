"""Text that every store can store."""

from __future__ import annotations

import random

import pytest

from domain.messages import MAX_CONTENT_CHARACTERS, is_storable, sanitize_text

LIMIT = MAX_CONTENT_CHARACTERS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "\x01\x1b[0m\x7f\x85",
        "line\r\nline\u2028line\ttab",
        "🚀 e\u0301 \ufeff \ufffd \uffff \U0010ffff",
        "\ud7ff\ue000",
        "x" * LIMIT,
        "🚀" * LIMIT,
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_storable_text_is_unchanged(text: str) -> None:
    assert sanitize_text(text) == text
    assert is_storable(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\0", "\ufffd"),
        ("a\0b\0", "a\ufffdb\ufffd"),
        ("\ud800", "\ufffd"),
        ("x\udfff", "x\ufffd"),
        ("a\ud83db", "a\ufffdb"),
        # In Python, two adjacent surrogates are two code points, not an emoji.
        ("\ud83d\ude80", "\ufffd\ufffd"),
    ],
    ids=ascii,
)
def test_unstorable_characters_are_replaced_one_for_one(text: str, kept: str) -> None:
    assert sanitize_text(text) == kept
    assert not is_storable(text)
    assert not is_storable("x" * LIMIT + text)


@pytest.mark.parametrize("length", [LIMIT + 1, LIMIT + 30, 3 * LIMIT])
def test_long_text_is_cut_and_ends_with_a_note(length: int) -> None:
    kept = sanitize_text("x" * length)
    note = f" … [cut: {length} characters]"
    assert kept == "x" * (LIMIT - len(note)) + note
    assert len(kept) == LIMIT
    assert is_storable("x" * length)


def test_sanitizing_is_idempotent() -> None:
    draw = random.Random(1)
    texts = ["".join(draw.choices("a\0\ud800\udc00🚀\n", k=50)) for _ in range(200)]
    for text in (*texts, "\0" * (LIMIT + 5), "🚀" * (LIMIT + 1), "x" * LIMIT + "\ud800"):
        once = sanitize_text(text)
        assert sanitize_text(once) == once
        assert len(once) <= LIMIT
        once.encode()
        assert "\0" not in once
