"""Checks of the Compose file and the Dockerfile that need no Docker engine."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from domain.configuration.isolation import SandboxMode
from settings import SECRET_NAMES, Settings
from tests import under_seccomp
from tests.integration.test_doctor import ISOLATION

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
REQUIRED = {
    "SUPABASE_URL": "https://project.supabase.co",
    "TEMPORAL_POSTGRES_PASSWORD": "password",
}
OURS = ("api", "worker")
SECCOMP_FILE = ROOT / "deploy" / "seccomp-worker.json"
SECCOMP: dict[str, Any] = json.loads(SECCOMP_FILE.read_text())
FOR_NAMESPACES = {"mount", "pivot_root", "sethostname", "setns", "umount2", "unshare"}
REFUSED = {
    "add_key", "bpf", "delete_module", "finit_module", "fsopen", "init_module", "io_uring_setup",
    "ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl", "mount_setattr", "move_mount",
    "open_by_handle_at", "open_tree", "perf_event_open", "quotactl", "reboot", "request_key",
    "settimeofday", "swapoff", "swapon", "syslog", "userfaultfd",
}  # fmt: skip


def test_every_service_has_a_health_check_or_ends():
    """Services that others wait for until they have completed need no health check."""
    services = COMPOSE["services"]
    ending = {
        name
        for service in services.values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_completed_successfully"
    }
    assert ending == {"temporal-schema", "temporal-namespace"}
    checked = {name for name, service in services.items() if "healthcheck" in service}
    assert checked | ending == set(services)


def environment_of(name: str, secrets: Path) -> dict[str, str]:
    """Return the environment of a service, with its secrets as files of a directory."""
    for secret in COMPOSE["services"][name]["secrets"]:
        assert COMPOSE["secrets"][secret]["file"].startswith("./secrets/")
        (secrets / secret).write_text(f"{secret}\n")
    environment = {}
    for key, value in COMPOSE["services"][name]["environment"].items():
        default = re.sub(r"\$\{\w+:?[-?]?(.*)\}", r"\1", str(value))
        text = REQUIRED.get(key, default)
        environment[key] = text.replace("/run/secrets", str(secrets))
    return environment


@pytest.mark.parametrize("name", OURS)
def test_our_services_start_with_the_environment_of_compose(name: str, tmp_path: Path):
    environment = environment_of(name, tmp_path)
    settings = Settings.from_env({**environment, "HOME": "/home/orchestrator"})
    settings.require_for_production()
    assert settings.temporal.address == "temporal:7233"
    assert settings.github.token == SecretStr("github-token")
    assert settings.sandbox.mode is SandboxMode.ON
    if name == "worker":
        assert settings.claude.environment["ANTHROPIC_API_KEY"] == "claude-credential"


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_no_secret_in_their_environment(name: str):
    assert not SECRET_NAMES & COMPOSE["services"][name]["environment"].keys()


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_few_rights(name: str):
    service = COMPOSE["services"][name]
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]


def test_only_the_worker_has_the_wider_profile():
    [profile] = [
        option.removeprefix("seccomp:")
        for option in COMPOSE["services"]["worker"]["security_opt"]
        if option.startswith("seccomp:")
    ]
    assert ROOT / profile == SECCOMP_FILE
    assert "systempaths=unconfined" in COMPOSE["services"]["worker"]["security_opt"]
    assert COMPOSE["services"]["api"]["security_opt"] == ["no-new-privileges:true"]


def test_secrets_are_neither_committed_nor_in_the_image():
    assert "/secrets/" in (ROOT / ".gitignore").read_text().split()
    assert "secrets" in (ROOT / ".dockerignore").read_text().split()


def test_the_profile_allows_only_the_named_system_calls():
    assert SECCOMP["defaultAction"] == "SCMP_ACT_ERRNO"
    assert SECCOMP["defaultErrnoRet"] == errno.ENOSYS
    assert {rule["action"] for rule in SECCOMP["syscalls"]} == {"SCMP_ACT_ALLOW"}
    assert {key for rule in SECCOMP["syscalls"] for key in rule} == {
        "action", "args", "comment", "names",
    }  # fmt: skip
    names = [name for rule in SECCOMP["syscalls"] for name in set(rule["names"])]
    assert [name for name in names if names.count(name) > 1] == ["personality"] * 3
    assert FOR_NAMESPACES <= set(names)
    assert not REFUSED & set(names)


def under(profile: Path, *command: str | Path, **environment: str) -> str:
    """Return the output of a command under a seccomp profile."""
    ended = subprocess.run(
        [sys.executable, under_seccomp.__file__, str(profile), *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if ended.returncode == under_seccomp.NO_LIBRARY:
        pytest.skip("libseccomp is not installed")
    return ended.stdout + ended.stderr


def test_the_sandbox_works_under_the_profile(tmp_path: Path):
    output = under(
        SECCOMP_FILE,
        sys.executable,
        ROOT / "cli.py",
        "doctor",
        HOME=str(tmp_path),
        PATH="/usr/local/bin:/usr/bin:/bin",
        ANTHROPIC_API_KEY="key",
    )
    assert {f"ok       sandbox: {state}" for state in ISOLATION} <= set(output.splitlines())
    assert re.search(r"^ok       Claude: [0-9.]+ runs", output, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(FOR_NAMESPACES))
def test_the_profile_allows_no_more_than_the_sandbox_needs(tmp_path: Path, name: str):
    less = {**SECCOMP, "syscalls": [{**rule} for rule in SECCOMP["syscalls"]]}
    for rule in less["syscalls"]:
        rule["names"] = [other for other in rule["names"] if other != name]
    profile = tmp_path / "less.json"
    profile.write_text(json.dumps(less))
    output = under(
        profile,
        sys.executable,
        ROOT / "cli.py",
        "doctor",
        HOME=str(tmp_path),
        PATH="/usr/local/bin:/usr/bin:/bin",
        ANTHROPIC_API_KEY="key",
    )
    assert "PROBLEM  sandbox: " in output


def test_no_secret_is_written_down():
    for name, service in COMPOSE["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("SECRET|KEY|TOKEN|PASSWORD|PWD", key):
                written = "/run/secrets/" if key.endswith("_FILE") else "${"
                assert str(value).startswith((written, "${")), f"{name}: {key}"


def test_only_loopback_ports_are_published():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_images_run_as_an_ordinary_user_that_owns_its_data():
    stages = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)[1:]
    users = {stage.split()[0]: re.findall(r"^USER (\S+)", stage, re.MULTILINE) for stage in stages}
    assert users["api"] == ["10001:10001"]
    assert users["worker"] == ["root", "10001:10001"]
    assert "useradd --create-home --uid 10001 " in DOCKERFILE
    assert "--owner 10001 --group 10001 --mode 0700 /data" in DOCKERFILE


def test_the_image_has_what_jobs_need():
    assert {"bubblewrap", "git", "git-lfs"} <= set(DOCKERFILE.split())


def test_the_images_copy_what_exists_and_pin_with_hashes():
    for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    assert "pip install" not in re.sub(
        r"pip install [^&\n]*(--require-hashes|/wheels/)", "", DOCKERFILE
    )


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
