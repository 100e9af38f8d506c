"""The Compose file and the Dockerfile, as far as they can be checked without a Docker engine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
REQUIRED = {
    "AGENT_API_SECRET": "x" * 32,
    "SUPABASE_URL": "https://project.supabase.co",
    "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x",
    "GITHUB_TOKEN": "token",
    "TEMPORAL_POSTGRES_PASSWORD": "password",
}


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_every_service_has_a_health_check(name: str):
    assert COMPOSE["services"][name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", ["api", "worker"])
def test_our_services_start_with_what_compose_gives_them(name: str):
    environment = {
        key: REQUIRED.get(key, "") if str(value).startswith("${") else str(value)
        for key, value in COMPOSE["services"][name]["environment"].items()
    }
    settings = Settings.from_env({**environment, "HOME": "/home/orchestrator"})
    settings.require_for_production()
    assert settings.temporal_address == "temporal:7233"


def test_no_secret_is_written_down():
    for name, service in COMPOSE["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("SECRET|KEY|TOKEN|PASSWORD|PWD", key):
                assert str(value).startswith("${"), f"{name}: {key}"


def test_only_loopback_ports_are_published():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_runs_as_an_ordinary_user_that_owns_its_data():
    user = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1]
    assert user not in {"root", "0"}
    assert f"--owner {user}" in DOCKERFILE


def test_the_image_copies_what_exists_and_pins_with_hashes():
    for line in re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE


def test_compose_itself_accepts_the_file():
    compose = [shutil.which("docker") or "docker", "compose"]
    if not _answers([*compose, "version"]):
        pytest.skip("Docker Compose is not installed")
    result = subprocess.run(
        [*compose, "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        env={**REQUIRED, "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def _answers(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_the_lock_files_pin_every_package_with_hashes_and_no_address():
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        pins = re.findall(r"^[a-z0-9].*", text, re.MULTILINE)
        assert pins
        assert all("==" in pin and pin.endswith("\\") for pin in pins)
        assert "://" not in text
