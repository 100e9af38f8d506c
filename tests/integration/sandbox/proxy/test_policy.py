"""The allowed hosts of each mode, and the sentences of the refusals."""

from __future__ import annotations

import ipaddress

import pytest

from domain.configuration.isolation import HostRule, Network
from sandbox.proxy.policy import Policy, Refused

PUBLIC = ipaddress.ip_address("8.8.8.8")
PRIVATE = ipaddress.ip_address("10.1.2.3")


def rules(*entries: str) -> tuple[HostRule, ...]:
    return tuple(HostRule.parse(entry) for entry in entries)


def refusal(policy: Policy, host: str, port: int) -> str:
    with pytest.raises(Refused) as refused:
        policy.check_target(host, port)
    assert refused.value.status == 403
    assert refused.value.host == host
    return refused.value.message


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("example.com", HostRule("example.com")),
        ("Example.COM.", HostRule("example.com")),
        ("example.com:8443", HostRule("example.com", ports=frozenset({8443}))),
        ("*.example.com", HostRule("example.com", subdomains=True)),
        ("*.example.com:443", HostRule("example.com", True, frozenset({443}))),
        ("8.8.8.8", HostRule("8.8.8.8")),
        ("[2001:4860:4860::8888]:853", HostRule("2001:4860:4860::8888", ports=frozenset({853}))),
    ],
)
def test_an_entry_of_sandbox_hosts(entry: str, rule: HostRule):
    assert HostRule.parse(entry) == rule


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("https://example.com", "Write example.com"),
        ("example.com/path", "Write example.com"),
        ("example.com:http", "Write example.com"),
        ("example.com:0443", "Write example.com"),
        ("user@example.com", "Write example.com"),
        ("münchen.de", "ASCII"),
        ("", "Write example.com"),
        ("*", "Write example.com"),
        ("*.", "Write example.com"),
        ("a.*.com", "Write example.com"),
        ("*example.com", "Write example.com"),
        ("*.*.example.com", "Write example.com"),
        ("0x7f.1", "Write example.com"),
        ("*.com", "too wide"),
        ("*.8.8.8.8", "too wide"),
        ("127.0.0.1", "not a public address"),
        ("10.0.0.1:8080", "not a public address"),
        ("[::1]", "not a public address"),
    ],
)
def test_a_wrong_entry_of_sandbox_hosts(entry: str, sentence: str):
    with pytest.raises(ValueError, match="SANDBOX_HOSTS") as error:
        HostRule.parse(entry)
    assert sentence in str(error.value)


@pytest.mark.parametrize("network", [Network.INTERNET, Network.HOST])
def test_the_internet_is_allowed_on_two_ports(network: Network):
    policy = Policy(network)
    policy.check_target("example.com", 443)
    policy.check_target("example.com", 80)
    assert refusal(policy, "example.com", 22) == (
        "The sandbox does not allow port 22 of example.com; it allows 80, 443."
    )


def test_only_listed_hosts_are_allowed():
    policy = Policy(Network.HOSTS, rules("mirror.test", "*.example.com", "git.example.com:8443"))
    allowed = [
        ("mirror.test", 443), ("mirror.test", 80), ("a.example.com", 443), ("a.b.example.com", 80),
        ("git.example.com", 8443), ("git.example.com", 443),
    ]  # fmt: skip
    for host, port in allowed:
        policy.check_target(host, port)
    for host in (
        "example.com",
        "notexample.com",
        "a.mirror.test",
        "mirror.test.evil.net",
        "8.8.8.8",
    ):
        assert refusal(policy, host, 443) == (
            f"The sandbox does not allow {host}. The operator can add it to SANDBOX_HOSTS."
        )
    assert refusal(policy, "mirror.test", 8443) == (
        "The sandbox does not allow port 8443 of mirror.test; it allows 80, 443."
    )
    assert refusal(policy, "git.example.com", 22) == (
        "The sandbox does not allow port 22 of git.example.com; it allows 80, 443, 8443."
    )


def test_no_host_is_allowed_without_a_network():
    assert refusal(Policy(Network.NONE, rules("example.com")), "example.com", 443) == (
        "The sandbox has no network, so example.com cannot be reached. "
        "The operator can change SANDBOX_NETWORK."
    )


@pytest.mark.parametrize("network", list(Network))
def test_one_private_address_is_enough_to_refuse_a_host(network: Network):
    policy = Policy(network, rules("example.com"))
    policy.check_addresses("example.com", 443, [PUBLIC])
    with pytest.raises(Refused) as refused:
        policy.check_addresses("example.com", 443, [PUBLIC, PRIVATE])
    assert refused.value.message == (
        "The sandbox does not allow example.com, because its address is private. "
        "Only public addresses can be reached."
    )


@pytest.mark.parametrize(
    "host", ["localhost", "intranet", "a.localhost", "printer.local", "metadata.google.internal"]
)
def test_names_in_private_zones_are_not_passed_to_the_operators_proxy(host: str):
    policy = Policy(Network.INTERNET)
    policy.check_delegated("example.com", 443)
    with pytest.raises(Refused, match="private"):
        policy.check_delegated(host, 443)


def test_an_exempt_host_is_allowed_on_its_port_with_any_address():
    policy = Policy(Network.NONE, exempt=frozenset({("git.internal", 8443)}))
    policy.check_target("git.internal", 8443)
    policy.check_addresses("git.internal", 8443, [PRIVATE])
    policy.check_delegated("git.internal", 8443)
    assert "no network" in refusal(policy, "git.internal", 443)
    with pytest.raises(Refused, match="private"):
        policy.check_addresses("git.internal", 443, [PRIVATE])
    with pytest.raises(Refused, match="private"):
        policy.check_delegated("git.internal", 443)
