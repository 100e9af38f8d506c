"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One installation for all tests of this process; make clients and repositories of your own."""
    root: Path = tmp_path_factory.mktemp("stack")
    with running_stack(root) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def leaks_are_found_where_they_are_made() -> Iterator[None]:
    """Let what was left open warn in its own module, not whenever garbage is next collected."""
    yield
    gc.collect()
