"""Ids."""

from __future__ import annotations

import uuid

import pytest

from domain.names.ids import derived_id, is_id, new_id

ID = "9b2f7a0c-5a07-4f5e-9d0e-3f6f5a0b1c2d"


@pytest.mark.parametrize(
    "text",
    [ID, ID.upper(), ID.title(), "c232ab00-9414-11ec-b3c8-9f6bdeced846", str(uuid.UUID(int=0))],
)
def test_valid_ids(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "None",
        ID.replace("-", ""),
        f"{{{ID}}}",
        f"urn:uuid:{ID}",
        f" {ID}",
        f"{ID}\n",
        f"{ID}0",
        ID[:-1],
        ID[:-1] + "g",
        ID.replace("-", "_"),
        ID.replace("-", "", 1) + "-",
        ID.replace("9", "٩"),
        ID.replace("9", "９"),
        "\0",
        "\ud800",
        "x" * 100_000,
    ],
    ids=lambda text: ascii(text[:45]),
)
def test_invalid_ids(text: str) -> None:
    assert not is_id(text)


def test_new_ids_are_unique() -> None:
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(is_id(text) and text == text.lower() for text in made)


def test_a_derived_id_depends_on_its_parts() -> None:
    assert derived_id("job", 1) == derived_id("job", 1) == derived_id("job", "1")
    assert is_id(derived_id("job", 1))
    made = {derived_id("job", number) for number in range(1000)} | {derived_id("other", 1)}
    assert len(made) == 1001


def test_a_derived_id_is_the_same_in_every_version() -> None:
    """Stored rows have derived ids, so the derivation must not change."""
    assert derived_id(ID, "prompt") == "88b3902c-9abe-502a-ab0b-30a096282c70"
