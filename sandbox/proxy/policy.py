"""The hosts, ports and addresses that a job may connect to, and the refusals."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.proxy.addresses import Address, is_outside, is_public, literal, parse_authority

WEB_PORTS = frozenset({80, 443})
_NOT_DELEGATED = ("localhost", "localdomain", "local", "internal", "home.arpa")


class Network(enum.StrEnum):
    """The values of SANDBOX_NETWORK."""

    INTERNET = "internet"
    """Every public address, on the ports 80 and 443."""
    HOSTS = "hosts"
    """The hosts of SANDBOX_HOSTS."""
    NONE = "none"
    """Only the model."""
    HOST = "host"
    """The sandbox uses the host's network. The proxy treats its requests as `INTERNET`."""


class Refused(Exception):
    """A request that the proxy does not fulfil.

    Attributes:
        status: of the HTTP response.
        message: a sentence for the reader of the program's output.
        host: the requested host, or the server of the model; empty if there is neither.
    """

    def __init__(self, status: int, message: str, host: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.host = host


@dataclass(frozen=True, slots=True)
class HostRule:
    """One entry of SANDBOX_HOSTS: a host, or all names below it, with the ports."""

    host: str
    subdomains: bool = False
    ports: frozenset[int] = WEB_PORTS

    @classmethod
    def parse(cls, entry: str) -> HostRule:
        """Parse `example.com`, `example.com:8443`, `*.example.com` or `*.example.com:8443`.

        Raises:
            ValueError: the text has another form, or the host can never be reached.
        """
        subdomains = entry.startswith("*.")
        try:
            host, port = parse_authority(entry.removeprefix("*."))
        except ValueError:
            raise ValueError(
                f"{entry!r} is not a host of SANDBOX_HOSTS. Write example.com, example.com:8443 "
                "or *.example.com, without http:// and without a path, in ASCII letters."
            ) from None
        address = literal(host)
        if subdomains and (address is not None or "." not in host):
            raise ValueError(f"{entry!r} is too wide for SANDBOX_HOSTS. Write *.example.com.")
        if address is not None and not is_public(address):
            raise ValueError(
                f"{entry!r} in SANDBOX_HOSTS is not a public address. The sandbox reaches public "
                "addresses only; remove it."
            )
        return cls(host, subdomains, frozenset({port}) if port else WEB_PORTS)

    def names(self, host: str) -> bool:
        """Return whether the entry matches a host, on any port."""
        return host.endswith(f".{self.host}") if self.subdomains else host == self.host


@dataclass(frozen=True, slots=True)
class Policy:
    """The network policy of a job. Hosts have the spelling of `parse_host`.

    Attributes:
        network: the mode.
        hosts: the allowed hosts of `Network.HOSTS`.
        exempt: hosts and ports allowed by the operator, even with private addresses.
        allows_address: returns whether connections to an address are allowed.
    """

    network: Network
    hosts: tuple[HostRule, ...] = ()
    exempt: frozenset[tuple[str, int]] = frozenset()
    allows_address: Callable[[Address], bool] = is_outside

    def check_target(self, host: str, port: int) -> None:
        """Decide by name and port.

        Raises:
            Refused: it is not allowed.
        """
        if (host, port) in self.exempt:
            return
        if self.network is Network.NONE:
            message = f"The sandbox has no network, so {host} cannot be reached. "
            raise Refused(403, message + "The operator can change SANDBOX_NETWORK.", host)
        ports = WEB_PORTS
        if self.network is Network.HOSTS:
            rules = [rule for rule in self.hosts if rule.names(host)]
            if not rules:
                message = f"The sandbox does not allow {host}. "
                raise Refused(403, message + "The operator can add it to SANDBOX_HOSTS.", host)
            ports = frozenset().union(*(rule.ports for rule in rules))
        if port not in ports:
            allowed = ", ".join(str(each) for each in sorted(ports))
            message = f"The sandbox does not allow port {port} of {host}; it allows {allowed}."
            raise Refused(403, message, host)

    def check_addresses(self, host: str, port: int, addresses: Sequence[Address]) -> None:
        """Decide by all addresses that a host has.

        Raises:
            Refused: one of them is not public.
        """
        if (host, port) in self.exempt:
            return
        if not all(self.allows_address(address) for address in addresses):
            raise _private(host)

    def check_delegated(self, host: str, port: int) -> None:
        """Decide on a name that has no address here and that the operator's proxy would resolve.

        Raises:
            Refused: the name is private on every network.
        """
        if (host, port) in self.exempt:
            return
        if "." not in host or any(host.endswith(f".{zone}") for zone in _NOT_DELEGATED):
            raise _private(host)


def _private(host: str) -> Refused:
    message = f"The sandbox does not allow {host}, because its address is private. "
    return Refused(403, message + "Only public addresses can be reached.", host)
