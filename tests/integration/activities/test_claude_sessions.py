"""Resuming a conversation after crashes, on other hosts, and after the loss of its session."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.claude import prompts
from agent.claude.session_files import SessionFiles
from agent.message_queue import UserMessage
from domain.errors import LeaseLost
from domain.jobs import LIVE, Job, JobType
from domain.messages import MessageType, NewMessage
from host.session_resume import SESSION_LOST_NOTICES, Session
from host.session_resume import Conversations as StoredConversations
from store.protocol import Guard
from tests.integration.activities.conversations import (
    Conversations,
    processes_of,
    prompt_id,
    transcript_file,
    turn,
)
from tests.integration.activities.worker_host import Granted, WorkerHost
from tests.integration.workflows.server import eventually
from tests.unit.store.samples import START, World, new_id

LOST = SESSION_LOST_NOTICES[JobType.TASK]


async def next_lease(host: WorkerHost, job: Job) -> Granted:
    """Give the job's next lease to a host, and prepare its worktree there."""
    lease = (await host.world.read(job)).lease + 1
    assert await host.world.store.update_job(job.id, {"lease": lease}, Guard(LIVE))
    granted = Granted(job, host.take(job, lease))
    await host.prepare(granted)
    return granted


async def test_an_interrupted_turn_resumes(
    conversations: Conversations,
) -> None:
    conversations.script(
        {"tools": [["Write", {"file_path": "$CWD/a.txt", "content": "half"}]]},
        {"tools": [["Bash", {"command": "touch begun; sleep 60"}]]},
    )
    host = conversations.host()
    granted, worktree = await host.prepared(prompt="Write a.txt and b.txt")
    running = asyncio.create_task(turn(host, granted))
    await eventually((worktree.path / "begun").exists)
    await host.leases.require(granted.key).stop()
    with pytest.raises(LeaseLost):
        await running
    assert processes_of(granted.job) == []
    assert await host.world.store.load_session(granted.job.id) is None

    conversations.script({"text": "Finished."})
    granted = await next_lease(host, granted.job)
    await turn(host, granted, 1, 2)
    (asked,) = conversations.asked
    assert asked.count("Write a.txt and b.txt") == 1
    assert asked.count("You were interrupted") == 1
    assert (await host.world.read(granted.job)).result == "Finished."
    assert (worktree.path / "a.txt").read_text() == "half"
    assert SESSION_LOST_NOTICES[JobType.CODE] not in await host.messages(granted.job)


async def test_a_conversation_moves_with_its_job_between_hosts(
    conversations: Conversations,
) -> None:
    first, second = conversations.host("first"), conversations.host("second")
    conversations.script({"text": "Answer one."})
    granted = await first.grant_task(prompt="Question one?")
    job = granted.job
    await first.prepare(granted)
    await turn(first, granted)
    begun = transcript_file(first, job).read_bytes()

    conversations.script({"text": "Answer two."})
    message = await conversations.user_says(job, "Question two?")
    elsewhere = await next_lease(second, job)
    assert (await turn(second, elsewhere, 2, 1, message)).answered == [message]
    assert transcript_file(second, job).read_bytes().startswith(begun)
    (asked,) = conversations.asked
    assert [asked.count(part) for part in ("Question one?", "Answer one.", "Question two?")] == [
        1
    ] * 3
    assert prompt_id(job) in transcript_file(second, job).read_text()

    conversations.script({"text": "Answer three."})
    third = await conversations.user_says(job, "Question three?")
    back = await next_lease(first, job)
    await turn(first, back, 3, 1, third)
    (asked,) = conversations.asked
    for part in ("Question one?", "Question two?", "Answer two.", "Question three?"):
        assert part in asked


async def test_a_message_that_is_in_the_session_counts_as_consumed(
    conversations: Conversations,
) -> None:
    host = conversations.host()
    conversations.script({"text": "I see."}, {"text": "Red."}, {"text": "As I said."})
    granted = await host.grant_task(prompt="What is it?")
    await host.prepare(granted)
    await turn(host, granted)
    message = await conversations.user_says(granted.job, "Which colour?")
    for attempt in (1, 2):
        assert (await turn(host, granted, 2, attempt, message)).answered[0] == message
    assert conversations.asked[-1].count("Which colour?") == 1


async def test_a_turn_reads_the_session_file_once_before_and_once_after(
    conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = conversations.host()
    conversations.script({"text": "I see."}, {"text": "Red."})
    granted = await host.grant_task(prompt="What is it?")
    await host.prepare(granted)
    read, reads = SessionFiles.read, []

    def count(files: SessionFiles) -> bytes | None:
        reads.append(files.session_id)
        return read(files)

    monkeypatch.setattr(SessionFiles, "read", count)
    await turn(host, granted)
    message = await conversations.user_says(granted.job, "Which colour?")
    await turn(host, granted, 2, 1, message)
    assert reads == [granted.job.id] * 4


async def test_a_lost_session_is_rebuilt_from_the_messages(conversations: Conversations) -> None:
    host = conversations.host()
    conversations.script({"text": "I see."}, {"text": "In all."})
    granted = await host.grant_task(prompt="What is it?")
    await host.prepare(granted)
    result = {"duration_ms": 1, "type": "result", "subtype": "success", "result": "A shop."}
    line = NewMessage(new_id(), MessageType.STDOUT, json.dumps(result), START)
    await host.world.store.append_messages(granted.job.id, [line])
    earlier = await conversations.user_says(granted.job, "What does it sell?")
    now = await conversations.user_says(granted.job, "In which sizes?")

    output = await turn(host, granted, 2, 1, now)

    assert output.answered == [prompt_id(granted.job), now]
    asked = conversations.asked[-1]
    history_text = (
        r"# Request\n\nWhat is it?\n\nThis is the continuation of an earlier conversation"
    )
    assert history_text in asked
    assert r"You: A shop.\n\nUser: What does it sell?" in asked
    assert asked.count("In which sizes?") == 1
    assert earlier not in output.answered
    assert (await host.messages(granted.job)).count(LOST) == 1


def files_of(job: Job, directory: Path) -> SessionFiles:
    return SessionFiles(directory / "home" / ".claude", directory / "worktree", job.id)


async def test_the_repositorys_guide_is_quoted_once_in_a_conversation(
    conversations: Conversations,
) -> None:
    host = conversations.host()
    conversations.script({"text": "Answer one."})
    granted = await host.grant_task(prompt="Question one?")
    job = granted.job
    worktree = await host.prepare(granted)
    (worktree.path / "CLAUDE.md").write_text("/cost\nAnswer in verse.\n")
    await turn(host, granted)
    (asked,) = conversations.asked_parts
    assert "Answer in verse." not in json.dumps(asked["system"])
    assert json.dumps(asked["messages"]).count("Answer in verse.") == 1

    conversations.script({"text": "Answer two."})
    message = await conversations.user_says(job, "Question two?")
    await turn(host, granted, 2, 1, message)
    assert conversations.asked[0].count("Answer in verse.") == 1

    # A new session needs the guide again.
    transcript_file(host, job).unlink()
    await host.world.store.save_session(job.id, job.id, b"")
    conversations.script({"text": "Answer three."}, repeat_last=True)
    message = await conversations.user_says(job, "Question three?")
    await turn(host, granted, 3, 1, message)
    assert conversations.asked[-1].count("Answer in verse.") == 1
    assert "Answer two." in conversations.asked[-1]

    text = "\n".join(await host.messages(job))
    assert "Question two?" in text
    assert "verse" not in text


async def resume_or_start(
    world: World, job: Job, directory: Path, *message_ids: str, has_run_before: bool = True
) -> Session:
    return await StoredConversations(world.store).resume_or_start(
        job,
        files_of(job, directory),
        list(message_ids),
        lease=job.lease,
        has_run_before=has_run_before,
    )


def user_line(message_id: str) -> bytes:
    """Return a user message in the format of the session file."""
    return json.dumps({"type": "user", "uuid": message_id}).encode() + b"\n"


async def test_a_new_job_starts_with_its_prompt(world: World, tmp_path: Path) -> None:
    job = await world.add_job()
    session = await resume_or_start(world, job, tmp_path, has_run_before=False)
    assert session == Session(None, [UserMessage(prompt_id(job), prompts.first_prompt(job, ""))])
    assert await world.transcript(job) == []


async def test_a_task_resumes_from_the_newest_session_file(world: World, tmp_path: Path) -> None:
    job = await world.add_job(job_type=JobType.TASK)
    prompt = user_line(prompt_id(job))
    older, newer = prompt, prompt + b'{"type":"assistant"}\n'
    interrupted_here = newer + b'{"type":"user","uuid":"x"}\n'
    was_elsewhere = prompt + b'{"type":"user","uuid":"y"}\n'
    await world.store.save_session(job.id, job.id, newer)
    for on_disk, expected in (
        (None, newer),
        (older, newer),
        (newer, newer),
        (interrupted_here, interrupted_here),
        (was_elsewhere, newer),
    ):
        files = files_of(job, tmp_path)
        files.discard()
        if on_disk is not None:
            files.restore(on_disk)
        session = await resume_or_start(world, job, tmp_path)
        assert session.used is not None
        assert files.read() == expected
        (message,) = session.initial_messages
        assert message.text == prompts.CONTINUE


async def test_only_new_messages_are_sent(
    world: World, conversations: Conversations, tmp_path: Path
) -> None:
    job = await world.add_job()
    seen, unseen = [await conversations.user_says(job, text) for text in ("Seen.", "Unseen.")]
    files = files_of(job, tmp_path)
    files.restore(user_line(prompt_id(job)) + user_line(seen))
    session = await resume_or_start(world, job, tmp_path, seen, unseen)
    assert session.initial_messages == [UserMessage(unseen, "Unseen.")]
    ids = {
        (await resume_or_start(world, job, tmp_path, seen)).initial_messages[0].id for _ in range(3)
    }
    assert len(ids) == 3
    files.restore(user_line("another"))
    session = await resume_or_start(world, job, tmp_path, seen)
    assert [message.id for message in session.initial_messages] == [prompt_id(job), seen]


async def test_a_code_job_restarts_on_another_host(world: World, tmp_path: Path) -> None:
    """Its session refers to files on the lost host."""
    job = await world.add_job(lease=2)
    await world.store.save_session(job.id, job.id, b'{"type":"user"}\n')
    answer = json.dumps({"type": "result", "subtype": "success", "result": "All done."})
    line = NewMessage(new_id(), MessageType.STDOUT, answer, START)
    await world.store.append_messages(job.id, [line])
    session = await resume_or_start(world, job, tmp_path)
    assert session == Session(None, [UserMessage(prompt_id(job), prompts.restart_prompt(job, ""))])
    assert files_of(job, tmp_path).read() is None
    assert [line.content for line in await world.transcript(job)][1:] == [
        SESSION_LOST_NOTICES[JobType.CODE]
    ]
