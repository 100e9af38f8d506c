"""The attacks that succeed against Landlock, and the reasons."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from sandbox import landlock
from tests.integration.sandbox.accounts import PYTHON, SYSTEM, Account
from tests.integration.sandbox.attacks.targets import Attempt, Targets, targets

NETWORK = "the network is not contained"
NO_NAMESPACE = "there is no namespace of processes"
NO_LIMITS = "Landlock limits nothing; the limits are set by others"

OPEN = {
    "A10": NETWORK,
    "A11": NETWORK,
    "B04": NETWORK,
    "A23": NETWORK,
    "A24": NETWORK,
    "A25": "named sockets are contained from ABI 9 (Linux 7.1) on",
    "A26": "Landlock does not refuse user namespaces",
    "A29": NO_NAMESPACE,
    "B07": NO_NAMESPACE,
    "B08": NO_NAMESPACE,
    "A30": "Claude needs its credential, and no proxy adds it",
    "A33": NO_LIMITS,
    "A34": NO_LIMITS,
    "A35": NO_LIMITS,
    "A39": "a job must be able to commit",
}
"""All attacks that succeed."""


@pytest.fixture(scope="module")
def prepared(account: Account) -> Iterator[Targets]:
    with targets(account) as made:
        yield made


@pytest.fixture(scope="module")
def attempts(prepared: Targets) -> dict[str, Attempt]:
    launcher = shutil.copy(landlock.__file__, prepared.base)
    readable = [part for path in (*SYSTEM, prepared.tools) for part in ("--ro", str(path))]
    words = [PYTHON, "-I", "-S", str(launcher), "--rw", str(prepared.job), *readable, "--"]
    before = prepared.outside()
    found = prepared.attacked(*words)
    assert prepared.outside() == before
    return found


def test_exactly_the_known_attacks_are_open(account: Account, attempts: dict[str, Attempt]):
    found = {name: each.detail for name, each in attempts.items() if each.is_open}
    closed_here = set()
    if landlock.available() >= 9:
        closed_here.add("A25")
    if not can_make_user_namespaces(account):
        closed_here.add("A26")
    assert found.keys() == OPEN.keys() - closed_here, found


def can_make_user_namespaces(account: Account) -> bool:
    return subprocess.run(["unshare", "--user", "true"], **account.popen).returncode == 0
