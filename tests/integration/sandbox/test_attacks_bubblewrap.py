"""No attack succeeds against SANDBOX=on, started in the same way as Claude."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from sandbox.containment import Reach
from sandbox.supervision.limits import Limits
from tests.integration.sandbox.accounts import Account
from tests.integration.sandbox.attacks import inside, targets
from tests.integration.sandbox.attacks.targets import Attempt, Targets
from tests.integration.sandbox.contained import ContainedJob

OPEN = {"A39"}
"""All attacks that succeed. A job must be able to commit."""

WATCHED = {"A34": "SANDBOX_MEMORY_GB", "A33": "SANDBOX_PROCESSES"}
"""Attacks on monitored limits, which stop the job, with the named setting."""

PROCESSES, FILE, MEMORY = 64, 1 << 20, 64 << 20
HELD = targets.Limits(PROCESSES, MEMORY, FILE, hold_seconds=30)


@pytest.fixture(scope="module")
def prepared(account: Account) -> Iterator[Targets]:
    with targets.targets(account, HELD) as made:
        yield made


@pytest.fixture(scope="module")
def job(prepared: Targets) -> ContainedJob:
    return ContainedJob(prepared.account, prepared.base, visible=(prepared.tools,))


@pytest.fixture(scope="module")
def reach(prepared: Targets) -> Reach:
    return Reach((prepared.job,), (prepared.base / "repos" / "own.git" / "objects",))


@pytest.fixture(scope="module")
async def attempts(prepared: Targets, job: ContainedJob, reach: Reach) -> dict[str, Attempt]:
    before = prepared.outside()
    limits = Limits(processes=PROCESSES, file_bytes=FILE)
    chosen = sorted(inside.ATTACKS.keys() - WATCHED.keys())
    async with job.served(limits=limits, reach=reach) as launch:
        found = await asyncio.to_thread(
            prepared.attacked,
            *launch.line,
            names=chosen,
            inherited=(launch.descriptor,),
            **launch.variables,
        )
    assert prepared.outside() == before
    assert found.keys() | {"A28"} == {*chosen}
    return found


def test_no_attack_succeeds(attempts: dict[str, Attempt]):
    found = {name: each.detail for name, each in attempts.items() if each.is_open}
    assert found.keys() == OPEN, found


@pytest.mark.parametrize("name", sorted(WATCHED))
async def test_a_job_that_exceeds_a_limit_is_stopped(
    name: str, prepared: Targets, job: ContainedJob, reach: Reach
):
    limits = Limits(processes=PROCESSES, memory_bytes=MEMORY)
    ended = await job.run(*prepared.attack, name, limits=limits, reach=reach)
    assert ended.stdout == ""
    assert ended.limit is not None
    assert WATCHED[name] in ended.limit
