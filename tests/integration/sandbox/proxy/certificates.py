"""A certificate authority and a signed certificate."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority's certificate, and a signed certificate followed by its key."""

    authority: Path
    signed: Path

    def server_context(self, *, asks: bool = False) -> ssl.SSLContext:
        """Return a TLS context for a server, which may require a client certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.signed)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context


def make_certificates(directory: Path, *names: str) -> Certificates:
    """Create an authority and a certificate for some host names."""
    key, signed_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate(key, key, "Test authority", [], is_authority=True)
    signed = _certificate(signed_key, key, names[0], names, is_authority=False)
    made = Certificates(directory / "authority.pem", directory / "signed.pem")
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.signed.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + signed_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    issuer: ec.EllipticCurvePrivateKey,
    name: str,
    hosts: tuple[str, ...] | list[str],
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer, hashes.SHA256())
