"""Choosing ports for servers that start later."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from fakes import ports
from fakes.ports import free_ports


def test_a_port_that_is_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    monkeypatch.setattr(ports, "_CANDIDATES", range(port, port + 1))
    monkeypatch.setattr(ports, "_claim", lambda port: True)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="Fewer than 1"):
        free_ports(1)
    assert free_ports(1) == [port]


def test_a_port_is_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    monkeypatch.setattr(ports, "_CANDIDATES", range(port, port + 1))
    with pytest.raises(OSError, match="Fewer than 1"):
        free_ports(1)


def test_another_process_chooses_other_ports_until_this_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chooser = "from fakes.ports import free_ports; print(*free_ports(1), flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", chooser], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        monkeypatch.setattr(ports, "_CANDIDATES", range(port, port + 1))
        with pytest.raises(OSError, match="Fewer than 1"):
            free_ports(1)
        other.communicate("\n")
    assert free_ports(1) == [port]
