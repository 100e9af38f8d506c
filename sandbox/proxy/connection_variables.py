"""The operator's own proxies and certificates, used by every outgoing connection."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes, urlsplit

import certifi
import httpcore

from domain.names.addresses import literal

_REPLACING_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_FORMS = "Use http://host:port or https://host:port."


class ConnectionVariables:
    """Read the operator's connection variables once.

    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are also read in lower case. SSL_CERT_FILE,
    SSL_CERT_DIR, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE replace the usual authorities,
    NODE_EXTRA_CA_CERTS adds to them. CLAUDE_CODE_CLIENT_CERT is sent to the model's server.

    Raises:
        ValueError: a variable is invalid. The message names it, but has no value with a password.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._context = self.model_context = _trust(variables)
        if variables.get("CLAUDE_CODE_CLIENT_CERT"):
            self.model_context = _trust(variables)
            _show_certificate(self.model_context, variables)
        self._proxies = {scheme: self._proxy(scheme) for scheme in ("http", "https")}
        self._exceptions = self._value("NO_PROXY").replace(",", " ").lower().split()

    def proxy_for(self, scheme: str, host: str, port: int) -> httpcore.Proxy | None:
        """Return the operator's proxy for a target; None for a direct connection.

        Connections to this host never use a proxy (as in Go).
        """
        address = literal(host)
        own = host == "localhost" or (address is not None and address.is_loopback)
        if own or any(_matches(entry, host, port) for entry in self._exceptions):
            return None
        return self._proxies[scheme]

    def _value(self, name: str) -> str:
        return self._variables.get(name.lower()) or self._variables.get(name) or ""

    def _proxy(self, scheme: str) -> httpcore.Proxy | None:
        specific = f"{scheme.upper()}_PROXY"
        name = specific if self._value(specific) else "ALL_PROXY"
        text = self._value(name).strip()
        if not text:
            return None
        try:
            url = urlsplit(text if "://" in text else f"http://{text}")
            port = url.port or (443 if url.scheme == "https" else 80)
        except ValueError:
            raise ValueError(f"{name} is not the URL of a proxy. {_FORMS}") from None
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{name} is not the URL of an HTTP proxy. {_FORMS}")
        return httpcore.Proxy(
            httpcore.URL(scheme=url.scheme, host=url.hostname, port=port, target="/"),
            auth=None
            if url.username is None
            else (unquote_to_bytes(url.username), unquote_to_bytes(url.password or "")),
            ssl_context=self._context if url.scheme == "https" else None,
        )


def _matches(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY (a name, `*`, address or network) matches a target."""
    if entry == "*":
        return True
    address = literal(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, _, only_port = entry.rpartition(":") if entry.endswith(f":{port}") else (entry, "", "")
    name = name.removeprefix("*").removeprefix(".").strip("[]")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _trust(variables: Mapping[str, str]) -> ssl.SSLContext:
    bundles = [name for name in _REPLACING_BUNDLES if variables.get(name)]
    directory = variables.get("SSL_CERT_DIR")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in bundles:
        _load(context, name, file=variables[name])
    if directory:
        _load(context, "SSL_CERT_DIR", directory=directory)
    if not bundles and not directory:
        # The system's authorities, and those that are bundled with Claude's runtime.
        context.load_default_certs()
        context.load_verify_locations(certifi.where())
    if variables.get("NODE_EXTRA_CA_CERTS"):
        _load(context, "NODE_EXTRA_CA_CERTS", file=variables["NODE_EXTRA_CA_CERTS"])
    return context


def _load(
    context: ssl.SSLContext, name: str, *, file: str | None = None, directory: str | None = None
) -> None:
    try:
        context.load_verify_locations(file, directory)
    except OSError as error:
        raise ValueError(f"{name} names certificates that cannot be read: {error}.") from error


def _show_certificate(context: ssl.SSLContext, variables: Mapping[str, str]) -> None:
    certificate = variables["CLAUDE_CODE_CLIENT_CERT"]
    key = variables.get("CLAUDE_CODE_CLIENT_KEY")
    # Without a password here, OpenSSL would ask for one at the terminal.
    passphrase = variables.get("CLAUDE_CODE_CLIENT_KEY_PASSPHRASE", "")
    try:
        context.load_cert_chain(certificate, key, passphrase)
    except OSError as error:
        raise ValueError(f"CLAUDE_CODE_CLIENT_CERT cannot be used: {error}.") from error
