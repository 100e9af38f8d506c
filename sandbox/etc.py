"""A copy of the parts of /etc that programs need and that hold no secret, shared by all sandboxes.

Binding one copy takes 1 ms. Binding each entry took 25 ms in total (measured).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

_ETC = Path("/etc")

_ENTRIES = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "fonts",
    "gai.conf",
    "group",
    "host.conf",
    "java-*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "lsb-release",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "protocols",
    "python3*",
    "redhat-release",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
"""Excludes `ssl/private` and the settings of pip, npm and git, which may hold tokens."""

_WRITTEN = {
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "resolv.conf": "# Names are resolved by the proxy.\n",
}


def assemble(target: Path) -> Path:
    """Update `target` from /etc and return it. Idempotent.

    Files are replaced one by one, because running sandboxes have the directory mounted. Entries
    that this user cannot read are skipped.
    """
    for source in readable_entries():
        _copy(source, target / source.relative_to(_ETC))
    for name, text in _WRITTEN.items():
        _put(target / name, text.encode())
    return target


def readable_entries() -> list[Path]:
    """Return the files and directories of /etc that contained programs may read."""
    return [source for pattern in _ENTRIES for source in sorted(_ETC.glob(pattern))]


def _copy(source: Path, target: Path) -> None:
    with contextlib.suppress(PermissionError, FileNotFoundError):
        if source.is_symlink():
            _link(os.readlink(source), target)
        elif source.is_dir():
            for entry in source.iterdir():
                _copy(entry, target / entry.name)
        elif source.is_file():
            _put(target, source.read_bytes(), executable=os.access(source, os.X_OK))


def _link(leads_to: str, target: Path) -> None:
    if target.is_symlink() and os.readlink(target) == leads_to:
        return
    draft = _draft(target)
    draft.symlink_to(leads_to)
    draft.replace(target)


def _put(target: Path, content: bytes, *, executable: bool = False) -> None:
    if not target.is_symlink() and target.is_file() and target.read_bytes() == content:
        return
    draft = _draft(target)
    draft.write_bytes(content)
    draft.chmod(0o755 if executable else 0o644)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    draft.replace(target)


def _draft(target: Path) -> Path:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    return target.with_name(f".{target.name}-{secrets.token_hex(4)}")
