"""Public addresses, and valid spellings of hosts."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct

import pytest

from domain.names.addresses import is_public, parse_authority, parse_host
from sandbox.proxy.own_addresses import is_outside, is_own

PRIVATE_V4 = [
    "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.100.100.200",
    "100.127.255.255", "127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.0.1",
    "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "192.168.0.0", "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
]  # fmt: skip
PUBLIC_V4 = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0", "140.82.121.4", "168.63.129.15", "169.253.255.255",
    "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255",
]  # fmt: skip
PRIVATE_V6 = [
    "::", "::1", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fdff::1", "ff02::1",
    "100::1", "2001::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1",
    "5f00::1", "4000::1", "64:ff9b:1::808:808",
]  # fmt: skip
PUBLIC_V6 = ["2001:4860:4860::8888", "2606:4700::6810:84e5", "2a00:1450:4001::1", "2620:0:2d0::1"]


@pytest.mark.parametrize("text", PRIVATE_V4 + PRIVATE_V6)
def test_addresses_that_are_not_public(text: str):
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC_V4 + PUBLIC_V6)
def test_public_addresses(text: str):
    assert is_public(ipaddress.ip_address(text))


def embedded(text: str) -> dict[str, ipaddress.IPv6Address]:
    """Return the IPv6 addresses that embed an IPv4 address."""
    number = int(ipaddress.IPv4Address(text))
    return {
        "mapped": ipaddress.IPv6Address((0xFFFF << 32) | number),
        "compatible": ipaddress.IPv6Address(number),
        "translated": ipaddress.IPv6Address((0xFFFF << 48) | number),
        "6to4": ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1),
        "teredo": ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
        "nat64": ipaddress.IPv6Address((0x64FF9B << 96) | number),
        "local nat64": ipaddress.IPv6Address((0x64FF9B0001 << 80) | number),
    }


@pytest.mark.parametrize("text", PRIVATE_V4)
def test_no_form_of_ipv6_makes_a_private_ipv4_address_public(text: str):
    for name, address in embedded(text).items():
        assert not is_public(address), name


@pytest.mark.parametrize("text", PUBLIC_V4)
def test_public_ipv4_addresses_are_public_in_the_ipv6_forms_in_use(text: str):
    public = {name for name, address in embedded(text).items() if is_public(address)}
    assert public == {"mapped", "nat64"}


def test_addresses_that_the_standard_library_calls_private_are_not_public():
    """Only in one direction: the list of the standard library differs between Python versions."""
    middle = (0, 1, 31, 63, 64, 88, 100, 127, 168, 254, 255)
    for parts in itertools.product(range(256), middle, (0, 2, 99), (1,)):
        address = ipaddress.IPv4Address(bytes(parts))
        if not address.is_global or address.is_multicast or address.is_reserved:
            assert not is_public(address)


def test_an_address_with_a_zone_is_not_public():
    assert not is_public(ipaddress.ip_address("2001:4860:4860::8888%eth0"))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("a_b.example.com", "a_b.example.com"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[::FFFF:127.0.0.1]", "::ffff:7f00:1"),
        ("1e100.net", "1e100.net"),
        ("4chan.org", "4chan.org"),
    ],
)
def test_each_host_has_one_canonical_spelling(text: str, host: str):
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "example.com..", ".example.com", "a..b", "-a.com", "a-.com",
        "a" * 64 + ".com", "a." * 127 + "com", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
        "127.1", "127.0.1", "017700000001", "127.0.0.01", "1.2.3.4.5", "256.1.1.1", "0x",
        "deb.0x", "a.0x7f", "a.1", "１２７.0.0.1",
        "[127.0.0.1]", "[::1", "::1]", "[::1%lo]", "[fe80::1%25eth0]", "::1%lo", "[example.com]",
        "user@example.com", "exa mple.com", "example.com/", "example.com#", "exam\tple.com",
        "example.com\x00", "example.com\n", "ex%61mple.com", "münchen.de", "ⓔxample.com",
        "example。com", "\u212aernel.org", "localhost%00.example.com", "*.example.com", "a,b",
    ],
)  # fmt: skip
def test_invalid_hosts_are_refused(text: str):
    with pytest.raises(ValueError, match="is not a host name or an IP address"):
        parse_host(text)


def test_numbers_that_the_system_parses_as_addresses_are_not_names():
    """The name service would parse these as addresses, but the policy as names."""
    for value in (0, 1, 127, 0x7F000001, 0x08080808, 0xFFFFFFFF):
        packed = struct.pack(">I", value)
        for spelling in (str(value), hex(value), f"0{value:o}", f"{packed[0]}.{value & 0xFFFFFF}"):
            assert socket.inet_aton(spelling)
            with pytest.raises(ValueError, match="is not a host name"):
                parse_host(spelling)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com:443", ("example.com", 443)),
        ("example.com", ("example.com", None)),
        ("[::1]:80", ("::1", 80)),
        ("Example.com.:1", ("example.com", 1)),
        ("1.1.1.1:65535", ("1.1.1.1", 65535)),
    ],
)
def test_a_host_with_a_port(text: str, expected: tuple[str, int | None]):
    assert parse_authority(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "example.com:", "example.com:0", "example.com:65536", "example.com:99999",
        "example.com:+80", "example.com:080", "example.com:8_0", "example.com:８０",
        "example.com:80:80", "::1:443", ":443",
        "example.com: 80", "a@example.com:443", "a:b@example.com:443", "[::1]443", "[::1]:", "",
    ],
)  # fmt: skip
def test_invalid_hosts_with_a_port_are_refused(text: str):
    with pytest.raises(ValueError, match="is not a host"):
        parse_authority(text)


def test_a_message_shows_a_hostile_spelling_escaped_and_short():
    with pytest.raises(ValueError, match="is not a host") as error:
        parse_host("\r\nSet-Cookie: a" + "b" * 1000)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_addresses_of_this_host_are_recognized():
    assert is_own(ipaddress.ip_address("127.0.0.1"))
    assert not is_own(ipaddress.ip_address("192.0.2.1"))
    assert not is_own(ipaddress.ip_address("2001:db8::1"))


def test_a_public_address_of_this_host_is_not_allowed(monkeypatch: pytest.MonkeyPatch):
    address = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr("sandbox.proxy.own_addresses.is_public", lambda _: True)
    assert not is_outside(address)
