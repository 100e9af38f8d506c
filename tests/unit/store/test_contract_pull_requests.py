from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from domain.errors import InvalidRequest
from domain.job_details import PullRequestRecord
from tests.unit.store.samples import UNKNOWN_ID, RawTables, World, new_id


async def test_recording_a_pull_request_twice_keeps_the_first(
    world: World, tables: RawTables
) -> None:
    feature = new_id()
    await tables.insert(
        "features", [{"id": feature, "client_id": world.client.id, "title": "Login"}]
    )
    record = PullRequestRecord(
        new_id(),
        new_id(),
        world.repository.id,
        feature,
        "feat/x",
        "https://x",
        17,
        "T",
        "https://y",
    )
    await world.store.record_pull_request(record)
    await world.store.record_pull_request(replace(record, title="other", branch_name="other"))
    (branch,) = await tables.select("code_branches")
    (pull_request,) = await tables.select("code_pull_requests")
    assert {key: branch[key] for key in ("id", "repository_id", "feature_id", "name", "url")} == {
        "id": record.branch_id,
        "repository_id": world.repository.id,
        "feature_id": feature,
        "name": "feat/x",
        "url": "https://x",
    }
    names = ("id", "repository_id", "feature_id", "branch_id", "number", "title", "status", "url")
    assert tuple(pull_request[name] for name in names) == (
        record.pull_request_id,
        world.repository.id,
        feature,
        record.branch_id,
        17,
        "T",
        "open",
        "https://y",
    )


@pytest.mark.parametrize("reference", ["repository_id", "feature_id"])
@pytest.mark.parametrize("no_id", [UNKNOWN_ID, "no-such-id"])
async def test_a_pull_request_of_a_missing_repository_is_refused(
    world: World, tables: RawTables, reference: str, no_id: str
) -> None:
    record = PullRequestRecord(
        new_id(), new_id(), world.repository.id, None, "feat/x", "https://x", 17, "T", "https://y"
    )
    wrong = replace(record, **cast(Any, {reference: no_id}))
    with pytest.raises(InvalidRequest):
        await world.store.record_pull_request(wrong)
    assert await tables.select("code_branches") == []
    assert await tables.select("code_pull_requests") == []
