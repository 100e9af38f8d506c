"""Every operation has the same answer for malformed and unknown ids."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from domain.errors import NotFound
from domain.job_details import JobFilter, JobPage
from domain.jobs import LIVE, Job, JobStatus, Usage
from domain.keyed_requests import KeyedRequest
from domain.messages import NewMessage
from store.protocol import Guard, Store
from tests.unit.store.samples import NO_IDS, World, a_line, a_request, lines, new_id, work_of

ANY = Guard(frozenset(JobStatus))


@dataclass(frozen=True)
class Rows:
    """Existing rows, so that only the id under test is wrong."""

    store: Store
    job: Job
    line: NewMessage
    message: NewMessage
    request: KeyedRequest


Call = Callable[[Rows, str], Awaitable[Any]]

NOTHING: dict[str, tuple[Call, Any]] = {
    "get_client": (lambda r, no_id: r.store.get_client(no_id), None),
    "get_repository": (lambda r, no_id: r.store.get_repository(no_id), None),
    "feature_exists": (lambda r, no_id: r.store.feature_exists(no_id), False),
    "team_member_exists": (lambda r, no_id: r.store.team_member_exists(no_id), False),
    "get_job": (lambda r, no_id: r.store.get_job(no_id), None),
    "get_job_state": (lambda r, no_id: r.store.get_job_state(no_id), None),
    "jobs of a client": (
        lambda r, no_id: r.store.list_jobs(JobFilter(client_id=no_id), 50, 0),
        JobPage([], 0),
    ),
    "jobs of a feature": (
        lambda r, no_id: r.store.list_jobs(JobFilter(LIVE, None, no_id), 50, 0),
        JobPage([], 0),
    ),
    "update_job": (lambda r, no_id: r.store.update_job(no_id, {"host": "mill-1"}, ANY), False),
    "queue_position": (lambda r, no_id: r.store.queue_position(no_id), 0),
    "read_messages": (lambda r, no_id: r.store.read_messages(no_id, 0, 100), []),
    "lines of no job": (lambda r, no_id: r.store.messages_by_id(no_id, [r.line.id]), []),
    "lines of no id": (lambda r, no_id: r.store.messages_by_id(r.job.id, [no_id]), []),
    "message of no id": (lambda r, no_id: r.store.take_from_inbox(r.job.id, no_id), False),
    "message of no job": (lambda r, no_id: r.store.take_from_inbox(no_id, r.message.id), False),
    "load_session": (lambda r, no_id: r.store.load_session(no_id), None),
    "kept_work": (lambda r, no_id: r.store.kept_work(no_id), None),
    "share_key": (
        lambda r, no_id: r.store.share_key(r.request.scope, r.request.key, no_id),
        False,
    ),
    "release_key": (
        lambda r, no_id: r.store.release_key(r.request.scope, r.request.key, no_id),
        None,
    ),
}
"""Operations, each with its answer when nothing was found or changed."""

NOT_FOUND: dict[str, Call] = {
    "add_usage": lambda r, no_id: r.store.add_usage(no_id, new_id(), Usage(1), 1.0),
    "append_messages": lambda r, no_id: r.store.append_messages(no_id, lines(2)),
    "append no messages": lambda r, no_id: r.store.append_messages(no_id, []),
    "put_in_inbox": lambda r, no_id: r.store.put_in_inbox(no_id, a_line()),
    "save_session": lambda r, no_id: r.store.save_session(no_id, "session-1", b"x"),
    "keep_work": lambda r, no_id: r.store.keep_work(work_of(r.job, job_id=no_id)),
}
"""Operations that raise `NotFound`."""


@pytest.fixture
async def rows(world: World) -> Rows:
    job, line, message = await world.add_job(), a_line(), a_line()
    await world.store.append_messages(job.id, [line])
    await world.store.put_in_inbox(job.id, message)
    await world.store.keep_work(work_of(job))
    request = await world.store.claim_key(a_request())
    return Rows(world.store, job, line, message, request)


async def outcome_of(call: Call, rows: Rows, no_id: str) -> Any:
    try:
        return await call(rows, no_id)
    except Exception as error:  # noqa: BLE001
        return type(error)


async def test_an_unknown_or_malformed_id_finds_and_changes_nothing(
    rows: Rows, world: World
) -> None:
    expected = NOTHING | {name: (call, NotFound) for name, call in NOT_FOUND.items()}
    offenders = [
        f"{name} with {no_id[:50]!r}: {outcome!r}"
        for name, (call, answer) in expected.items()
        for no_id in NO_IDS
        if (outcome := await outcome_of(call, rows, no_id)) != answer
    ]
    assert not offenders, "\n".join(offenders)
    assert await world.read(rows.job) == rows.job
    assert [line.id for line in await world.transcript(rows.job)] == [rows.line.id]
    assert await rows.store.take_from_inbox(rows.job.id, rows.message.id)
    assert await rows.store.kept_work(rows.job.id) == work_of(rows.job)
    repeated = replace(rows.request, resource_id=new_id())
    assert await rows.store.claim_key(repeated) == rows.request
