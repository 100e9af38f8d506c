"""The same fake GitHub as for the activities."""

from __future__ import annotations

from tests.integration.activities.conftest import forge

__all__ = ["forge"]
