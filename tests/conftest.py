"""Fixtures for the tests of several packages."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One installation for all tests of this process. Each test creates its own clients."""
    root: Path = tmp_path_factory.mktemp("stack")
    with running_stack(root) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def report_leaks_per_module() -> Iterator[None]:
    """Collect garbage after each module, so that unclosed resources warn in the right module."""
    yield
    gc.collect()
