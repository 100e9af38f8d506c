"""Every attack succeeds without a sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.sandbox.accounts import Account
from tests.integration.sandbox.attacks import inside
from tests.integration.sandbox.attacks.targets import Attempt, Targets, targets

UP_TO_THE_MACHINE = {"A26", "A27", "A36", "A37", "A38"}
"""User namespaces and files of root, which a host or container may restrict by itself."""

OF_ROOT = UP_TO_THE_MACHINE - {"A26"}

NEEDED_BY_ROOT = 1 << 21 | 1 << 27
"""CAP_SYS_ADMIN and CAP_MKNOD, which containers remove."""


@pytest.fixture(scope="module")
def prepared(account: Account) -> Iterator[Targets]:
    with targets(account) as made:
        yield made


@pytest.fixture(scope="module")
def attempts(prepared: Targets) -> dict[str, Attempt]:
    before = prepared.outside()
    found = prepared.attacked()
    assert prepared.outside() != before
    return found


def test_every_attack_is_attempted(attempts: dict[str, Attempt]):
    assert attempts.keys() >= inside.ATTACKS.keys() - {"A28"}
    assert inside.ATTACKS.keys() >= {
        *(f"A{number:02}" for number in range(1, 40)),
        *(f"B{number:02}" for number in (3, 4, 5, 6, 7, 8, 14, 15, 16)),
    }


def test_every_attack_succeeds(attempts: dict[str, Attempt]):
    closed = {name: each.detail for name, each in attempts.items() if not each.is_open}
    assert closed.keys() - UP_TO_THE_MACHINE == set(), closed


def test_every_part_of_an_attack_succeeds(attempts: dict[str, Attempt]):
    details = [each.detail for each in attempts.values() if each.is_open]
    assert [detail for detail in details if "Error" in detail] == []


def test_only_root_can_open_files_of_root(account: Account, attempts: dict[str, Attempt]):
    if account.is_root and not has_all_of_root():
        pytest.skip("this root is one of a container")
    assert {attempts[name].is_open for name in OF_ROOT} == {account.is_root}


def has_all_of_root() -> bool:
    with open("/proc/self/status") as file:
        fields = dict(line.split(":\t") for line in file)
    return int(fields["CapEff"], 16) & NEEDED_BY_ROOT == NEEDED_BY_ROOT
