"""The hosts, ports and addresses that a job may connect to, and the refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.configuration.isolation import WEB_PORTS, HostRule, Network
from domain.names.addresses import Address
from sandbox.proxy.own_addresses import is_outside

_NOT_DELEGATED = ("localhost", "localdomain", "local", "internal", "home.arpa")


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
