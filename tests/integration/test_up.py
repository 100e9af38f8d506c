"""The addresses and ports that `orchestrator up` reserves for Temporal."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from commands import up
from settings import SettingsError


@pytest.fixture
def address() -> str:
    return up._random_loopback_address()


def test_addresses_are_loopback_and_differ():
    addresses = {up._random_loopback_address() for _ in range(100)}
    assert len(addresses) > 90
    assert all(ip_address(each).is_loopback for each in addresses)


def test_each_port_is_reserved_once(address: str):
    with up._reserved_port(address) as one, up._reserved_port(address) as other:
        ports = {each.getsockname()[1] for each in (one, other)}
        assert len(ports) == 2
        assert ports <= set(up.PORTS_CLOSED_TO_BROWSERS)


def test_temporal_can_listen_on_a_reserved_port_repeatedly(address: str):
    with up._reserved_port(address) as reserved:
        for _ in range(2):
            # create_server sets SO_REUSEADDR, as Go does.
            with socket.create_server(reserved.getsockname()) as server:
                with socket.create_connection(server.getsockname()):
                    server.accept()[0].close()


def test_ports_in_use_are_skipped(address: str, monkeypatch: pytest.MonkeyPatch):
    first, second = up.PORTS_CLOSED_TO_BROWSERS[:2]
    monkeypatch.setattr(up, "PORTS_CLOSED_TO_BROWSERS", (first, second))
    with socket.create_server((address, first)), up._reserved_port(address) as reserved:
        assert reserved.getsockname() == (address, second)
        with pytest.raises(SettingsError, match=f"{address} .* {first}, {second}"):
            up._reserved_port(address)
