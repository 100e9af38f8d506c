"""The same real parts as for the activities."""

from __future__ import annotations

from tests.integration.activities.conftest import (
    askers,
    closed_gateways,
    forge,
    host,
    slot_host,
    store,
    temporal,
    world,
)

__all__ = [
    "askers",
    "closed_gateways",
    "forge",
    "host",
    "slot_host",
    "store",
    "temporal",
    "world",
]
