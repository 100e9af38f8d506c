"""Hosts in HTTP syntax."""

from __future__ import annotations

import pytest

from domain.names.http_hosts import HttpHost, parse_http_host

HOSTS = {
    "localhost": HttpHost("localhost"),
    "LocalHost.:3456": HttpHost("localhost", 3456),
    "api.example.com": HttpHost("api.example.com"),
    "api_1:80": HttpHost("api_1", 80),
    "192.0.2.7:65535": HttpHost("192.0.2.7", 65535),
    "[::1]": HttpHost("::1"),
    "[2001:DB8:0::0001]:8443": HttpHost("2001:db8::1", 8443),
    "[::ffff:192.0.2.7]": HttpHost("192.0.2.7"),
}
NO_HOSTS = [
    "", ":80", "a b", "a:", "a:b", "a:0", "a:65536", "a:123456", "a:b:80", "http://a", "a/b", "a@b",
    "*", "*.example.com", "::1", "[::1", "[::1]x", "[]", "[1.2.3.4]", "[::1%25lo]", "ä.example",
    "a\n", "a,b", "x" * 254,
]  # fmt: skip


@pytest.mark.parametrize(("text", "host"), HOSTS.items(), ids=HOSTS)
def test_valid_hosts_are_normalized(text: str, host: HttpHost):
    assert parse_http_host(text) == host


@pytest.mark.parametrize("text", NO_HOSTS)
def test_invalid_hosts(text: str):
    assert parse_http_host(text) is None


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.9.8.7", "[::1]"])
def test_loopback_hosts(name: str):
    host = parse_http_host(name)
    assert host is not None
    assert host.is_loopback


@pytest.mark.parametrize("name", ["localhost.example.com", "0.0.0.0", "127.0.0.1.example.com"])
def test_other_hosts_are_not_loopback(name: str):
    host = parse_http_host(name)
    assert host is not None
    assert not host.is_loopback
