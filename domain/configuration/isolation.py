"""The isolation of jobs: values of SANDBOX, SANDBOX_NETWORK and SANDBOX_HOSTS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.names.addresses import is_public, literal, parse_authority

WEB_PORTS = frozenset({80, 443})

SYSTEM_TREES = ("/usr", "/opt")
"""Every contained command can read these, within the permissions of its user."""


class SandboxMode(StrEnum):
    """The values of SANDBOX."""

    ON = "on"
    """bubblewrap: namespaces, in which a job has only its own files and the proxy."""
    LANDLOCK = "landlock"
    """Landlock: protects files, ptrace and signals only. For containers that forbid namespaces."""
    OFF = "off"
    """No isolation: Claude's commands act as the worker's user."""


class Network(StrEnum):
    """The values of SANDBOX_NETWORK."""

    INTERNET = "internet"
    """Every public address, on the ports 80 and 443."""
    HOSTS = "hosts"
    """The hosts of SANDBOX_HOSTS."""
    NONE = "none"
    """Only the model."""
    HOST = "host"
    """The host's own network. Requests that use the proxy are treated as with `INTERNET`."""


@dataclass(frozen=True, slots=True)
class HostRule:
    """An entry of SANDBOX_HOSTS: a host or all its subdomains, with the ports."""

    host: str
    subdomains: bool = False
    ports: frozenset[int] = WEB_PORTS

    @classmethod
    def parse(cls, entry: str) -> HostRule:
        """Read `example.com`, `example.com:8443`, `*.example.com` or `*.example.com:8443`.

        Raises:
            ValueError: the entry has another form, or can never be reached.
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
        """Return whether the rule applies to a host, on any port."""
        return host.endswith(f".{self.host}") if self.subdomains else host == self.host
