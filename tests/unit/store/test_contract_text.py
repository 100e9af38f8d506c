from __future__ import annotations

import pytest

from domain.jobs import JobOptions, JobStatus
from domain.messages import MAX_CONTENT_CHARACTERS, sanitize_text
from store.protocol import Guard
from tests.unit.store.samples import TEXTS, World, a_client, a_line, a_repository, later

ANY = Guard(frozenset(JobStatus))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_every_text_is_stored_sanitized(world: World, text: str) -> None:
    kept = sanitize_text(text)
    options = JobOptions(model=text, labels=(text, "x"))
    job = await world.add_job(
        prompt=text, title=text, branch_name=text, session_id=text, options=options
    )
    await world.store.update_job(job.id, {"error": text, "result": text, "host": text}, ANY)
    await world.store.append_messages(job.id, [a_line(text)])
    await world.store.save_session(job.id, text, b"transcript")
    found = await world.read(job)
    assert {found.prompt, found.title, found.branch_name, found.session_id} == {kept}
    assert {found.error, found.result, found.host} == {kept}
    assert found.options == JobOptions(model=kept, labels=(kept, "x"))
    assert [line.content for line in await world.transcript(job)] == [kept]
    assert await world.store.load_session(job.id) == (kept, b"transcript")
    assert [entry.branch_name for entry in (await world.store.queue(1)).queued] == [kept]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_every_name_is_stored_sanitized(world: World, text: str) -> None:
    client = a_client(text)
    await world.store.create_client(client)
    await world.store.add_repository(a_repository(client, repo_name=text, url=text))
    found = await world.store.find_repository("acme", text)
    assert found is not None
    assert (found.repo_name, found.url) == (sanitize_text(text), sanitize_text(text))
    details = await world.store.get_client(client.id)
    assert details is not None
    assert details.client.name == sanitize_text(text)


async def test_a_mebibyte_is_stored_unchanged(world: World) -> None:
    ascii_text, wide_text = "x" * MAX_CONTENT_CHARACTERS, "日" * MAX_CONTENT_CHARACTERS
    job = await world.add_job(prompt=ascii_text)
    await world.store.update_job(job.id, {"result": wide_text, "error": ascii_text}, ANY)
    await world.store.append_messages(job.id, [a_line(wide_text), a_line(ascii_text)])
    found = await world.read(job)
    assert (found.prompt == ascii_text, found.result == wide_text) == (True, True)
    assert [line.content for line in await world.transcript(job)] == [wide_text, ascii_text]


async def test_a_longer_message_is_cut_and_ends_with_a_note(world: World) -> None:
    job, text = await world.add_job(), "x" * (MAX_CONTENT_CHARACTERS + 1)
    await world.store.append_messages(job.id, [a_line(text)])
    (line,) = await world.transcript(job)
    assert line.content == sanitize_text(text)
    assert len(line.content) == MAX_CONTENT_CHARACTERS


async def test_session_files_are_stored_unchanged(world: World) -> None:
    job, other = await world.add_job(), await world.add_job()
    assert await world.store.load_session(job.id) is None
    for transcript in (b"", bytes(range(256)) * 8192, b"\x00\xff" * 2_000_000, b"last"):
        await world.store.save_session(job.id, "session-1", transcript)
        assert await world.store.load_session(job.id.upper()) == ("session-1", transcript)
    await world.store.save_session(job.id, "session-2", b"other")
    assert await world.store.load_session(job.id) == ("session-2", b"other")
    assert await world.store.load_session(other.id) is None
    assert later(0) == (await world.read(other)).updated_at
