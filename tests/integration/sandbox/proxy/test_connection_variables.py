"""The proxies and certificates of the operator's variables."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from sandbox.proxy.connection_variables import ConnectionVariables
from tests.integration.sandbox.proxy.certificates import Certificates


def test_certificates_replace_the_usual_ones_or_add_to_them(certificates: Certificates):
    def count(**variables: str) -> int:
        context: ssl.SSLContext = ConnectionVariables(variables).model_context
        return context.cert_store_stats()["x509_ca"]

    authority = str(certificates.authority)
    assert count(SSL_CERT_FILE=authority) == 1
    assert count(SSL_CERT_DIR=str(certificates.authority.parent)) == 0  # read when it is needed
    assert count(NODE_EXTRA_CA_CERTS=authority) == count() + 1


@pytest.mark.parametrize(
    ("variables", "scheme", "proxied"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https", b"p"),
        ({"HTTPS_PROXY": "http://p:1"}, "http", None),
        ({"HTTP_PROXY": "p:1"}, "http", b"p"),
        ({"https_proxy": "http://lower:1", "HTTPS_PROXY": "http://upper:1"}, "https", b"lower"),
        ({"ALL_PROXY": "https://p"}, "http", b"p"),
        ({"all_proxy": "http://p", "HTTPS_PROXY": "http://q"}, "https", b"q"),
        ({"HTTPS_PROXY": ""}, "https", None),
    ],
)
def test_the_proxy_of_a_scheme(
    certificates: Certificates, variables: dict[str, str], scheme: str, proxied: bytes | None
):
    few = {"SSL_CERT_FILE": str(certificates.authority)}  # loads faster than the usual ones
    found = ConnectionVariables({**few, **variables}).proxy_for(scheme, "example.com", 443)
    assert (found and found.url.host) == proxied


@pytest.mark.parametrize(
    ("entries", "host", "direct"),
    [
        ("*", "example.com", True),
        ("example.com", "example.com", True),
        ("example.com", "a.example.com", True),
        ("example.com", "notexample.com", False),
        (".example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("other.com, EXAMPLE.com", "example.com", True),
        ("other.com example.com", "example.com", True),
        ("example.com:443", "example.com", True),
        ("example.com:8443", "example.com", False),
        ("8.8.0.0/16", "8.8.8.8", True),
        ("8.8.0.0/16", "8.9.8.8", False),
        ("8.8.8.8", "8.8.8.8", True),
        ("8.8.8.8:443", "8.8.8.8", True),
        ("[2001:4860::1]", "2001:4860::1", True),
        ("2001:4860::/32", "2001:4860::1", True),
        (".", "example.com", False),
        ("", "localhost", True),
        ("", "127.8.8.8", True),
        ("", "::1", True),
        ("", "example.com", False),
    ],
)
def test_no_proxy(certificates: Certificates, entries: str, host: str, direct: bool):
    few = {"SSL_CERT_FILE": str(certificates.authority)}
    connection = ConnectionVariables({**few, "HTTPS_PROXY": "http://p:1", "NO_PROXY": entries})
    assert (connection.proxy_for("https", host, 443) is None) == direct


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"HTTPS_PROXY": "socks5://user:secret@p:1"}, "HTTPS_PROXY is not the URL of an HTTP"),
        ({"ALL_PROXY": "socks5h://p:1"}, "ALL_PROXY is not the URL of an HTTP proxy"),
        ({"HTTP_PROXY": "http://user:secret@p:port"}, "HTTP_PROXY is not the URL of a proxy"),
        ({"HTTP_PROXY": "http://"}, "HTTP_PROXY is not the URL"),
        ({"NODE_EXTRA_CA_CERTS": "/nowhere.pem"}, "NODE_EXTRA_CA_CERTS names certificates"),
        ({"SSL_CERT_FILE": "/nowhere.pem"}, "SSL_CERT_FILE names certificates"),
        ({"CLAUDE_CODE_CLIENT_CERT": "/nowhere.pem"}, "CLAUDE_CODE_CLIENT_CERT cannot be used"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(variables: dict[str, str], sentence: str):
    with pytest.raises(ValueError, match=sentence) as error:
        ConnectionVariables(variables)
    assert "secret" not in str(error.value)


def test_a_file_without_certificates_is_named(tmp_path: Path):
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(ValueError, match="SSL_CERT_FILE names certificates that cannot be read"):
        ConnectionVariables({"SSL_CERT_FILE": str(empty)})
