"""Jobs that replace their session files."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.claude import prompts, session_files
from agent.claude.session_files import MAX_TRANSCRIPT_BYTES
from domain.jobs import LIVE, Job, JobType
from host.session_resume import SESSION_LOST_NOTICES
from sandbox import files
from store.protocol import Guard
from tests.integration.activities.conversations import (
    Conversations,
    prompt_id,
    transcript_file,
    turn,
)
from tests.integration.activities.worker_host import Granted, WorkerHost

SECRET = "The neighbour's launch code is 0000."

# Each creates something newer than the session file in another directory.
BESIDE = {
    "fifo": "mkfifo $T",
    "sparse": "truncate -s 4G $T",
    "link": "ln -s {neighbour} $T",
}


@pytest.fixture
async def neighbour(conversations: Conversations) -> tuple[WorkerHost, Path]:
    """A host with the session file of another job."""
    host = conversations.host()
    conversations.script({"text": "Noted."})
    granted = await host.grant_task(prompt=SECRET)
    await host.prepare(granted)
    await turn(host, granted)
    return host, transcript_file(host, granted.job)


@pytest.fixture(autouse=True)
def nothing_of_a_session_is_opened_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, read_guide = files._directory, prompts.read_guide

    def checked(root: Path, *arguments: object, **options: object) -> object:
        if "sessions" in root.parts:
            assert_no_event_loop()
        return opened(root, *arguments, **options)  # type: ignore[arg-type]

    def guide(worktree: Path) -> str:
        assert_no_event_loop()
        return read_guide(worktree)

    monkeypatch.setattr(files, "_directory", checked)
    monkeypatch.setattr(prompts, "read_guide", guide)


def assert_no_event_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


async def saved_session(host: WorkerHost, job: Job) -> bytes:
    saved = await host.world.store.load_session(job.id)
    assert saved is not None
    return saved[1]


async def next_lease(host: WorkerHost, job: Job) -> Granted:
    lease = (await host.world.read(job)).lease + 1
    assert await host.world.store.update_job(job.id, {"lease": lease}, Guard(LIVE))
    host.leases.drop(host.leases.require(Granted(job, host.take(job, lease)).key))
    return Granted(job, host.take(job, lease))


@pytest.mark.parametrize("attack", BESIDE)
async def test_files_beside_the_session_file_are_not_read(
    conversations: Conversations, neighbour: tuple[WorkerHost, Path], attack: str
) -> None:
    host, neighbours = neighbour
    os.utime(neighbours, (2**33, 2**33))
    granted, _ = await host.prepared(prompt="Attack.")
    job = granted.job
    place = "T=$CLAUDE_CONFIG_DIR/projects/zz/{id}.jsonl; mkdir -p $(dirname $T); "
    commands = place + BESIDE[attack] + "; touch -c -d 2099-01-01 $T; ls -l $T"
    command = commands.format(id=job.id, neighbour=neighbours)
    conversations.script({"tools": [["Bash", {"command": command}]]}, {"text": "Done."})

    async with asyncio.timeout(60):
        assert (await turn(host, granted)).answered == [prompt_id(job)]

    beside = host.sessions / job.id / ".claude" / "projects" / "zz" / f"{job.id}.jsonl"
    assert beside in beside.parent.iterdir()
    saved = await saved_session(host, job)
    assert b"Attack." in saved
    assert SECRET.encode() not in saved
    assert len(saved) < MAX_TRANSCRIPT_BYTES

    # The second process resumes the job's own session.
    conversations.script({"text": "As I said."})
    async with asyncio.timeout(60):
        await turn(host, granted, 1, 2)
    (asked,) = conversations.asked
    assert "Attack." in asked
    assert "You were interrupted" in asked
    assert SECRET not in asked


def fifo(transcript: Path, neighbours: Path) -> None:
    transcript.unlink()
    os.mkfifo(transcript)


def sparse(transcript: Path, neighbours: Path) -> None:
    os.truncate(transcript, 4 << 30)


def link(transcript: Path, neighbours: Path) -> None:
    transcript.unlink()
    transcript.symlink_to(neighbours)


def linked_directory(transcript: Path, neighbours: Path) -> None:
    elsewhere = neighbours.parent.parent / "shown"
    elsewhere.mkdir()
    (elsewhere / transcript.name).write_bytes(neighbours.read_bytes())
    transcript.unlink()
    transcript.parent.rmdir()
    transcript.parent.symlink_to(elsewhere)


ATTACKS = [fifo, sparse, link, linked_directory]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_code_job_with_an_unsafe_session_file_restarts(
    conversations: Conversations,
    neighbour: tuple[WorkerHost, Path],
    caplog: pytest.LogCaptureFixture,
    attack: Callable[[Path, Path], None],
) -> None:
    host, neighbours = neighbour
    before = neighbours.read_bytes()
    granted, _ = await host.prepared(prompt="Attack.")
    job = granted.job
    conversations.script({"text": "Done."})
    await turn(host, granted)
    place = transcript_file(host, job)
    attack(place, neighbours)

    conversations.script({"text": "Begun again."})
    async with asyncio.timeout(60):
        assert (await turn(host, granted, 1, 2)).answered == [prompt_id(job)]

    (asked,) = conversations.asked
    assert "You may have started this job before" in asked
    assert SECRET not in asked
    assert (await host.messages(job)).count(SESSION_LOST_NOTICES[JobType.CODE]) == 1
    assert f"The session file of job {job.id} was ignored" in caplog.text
    assert SECRET not in caplog.text
    assert await saved_session(host, job) == place.read_bytes()
    assert SECRET.encode() not in place.read_bytes()
    assert not place.is_symlink()
    assert neighbours.read_bytes() == before

    # It restarts only once.
    conversations.script({"text": "All done."})
    await turn(host, granted, 1, 3)
    assert "Begun again." in conversations.asked[0]
    assert (await host.messages(job)).count(SESSION_LOST_NOTICES[JobType.CODE]) == 1


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_conversation_with_an_unsafe_session_file_resumes_from_the_saved_one(
    conversations: Conversations,
    neighbour: tuple[WorkerHost, Path],
    attack: Callable[[Path, Path], None],
) -> None:
    host, neighbours = neighbour
    granted = await host.grant_task(prompt="Question one?")
    job = granted.job
    await host.prepare(granted)
    conversations.script({"text": "Answer one."})
    await turn(host, granted)
    attack(transcript_file(host, job), neighbours)

    conversations.script({"text": "Answer two."})
    message = await conversations.user_says(job, "Question two?")
    async with asyncio.timeout(60):
        assert (await turn(host, granted, 2, 1, message)).answered == [message]
    (asked,) = conversations.asked
    for part in ("Question one?", "Answer one.", "Question two?"):
        assert asked.count(part) == 1
    assert SECRET not in asked
    assert SESSION_LOST_NOTICES[JobType.TASK] not in await host.messages(job)
    assert await saved_session(host, job) == transcript_file(host, job).read_bytes()


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_turn_with_an_unreadable_session_file_is_not_forgotten(
    conversations: Conversations, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """Neither the messages of the user nor the answers of Claude, on any host."""
    host, other = conversations.host(), conversations.host("second")
    granted = await host.grant_task(prompt="Question one?")
    job = granted.job
    await host.prepare(granted)
    conversations.script({"text": "Answer one."})
    await turn(host, granted)
    begun = await saved_session(host, job)
    transcript_file(host, job).write_bytes(begun)

    conversations.script({"text": "Answer two."})
    second = await conversations.user_says(job, "Question two?")
    monkeypatch.setattr(session_files, "MAX_TRANSCRIPT_BYTES", len(begun))
    assert (await turn(host, granted, 2, 1, second)).answered == [second]
    assert await saved_session(host, job) == b""
    monkeypatch.undo()

    going_on = host
    if elsewhere:
        going_on = other
        granted = await next_lease(other, job)
        await other.prepare(granted)
    conversations.script({"text": "Answer three."}, repeat_last=True)
    third = await conversations.user_says(job, "Question three?")
    assert third in (await turn(going_on, granted, 3, 1, third)).answered
    asked = conversations.asked[-1]
    texts = ("Question one?", "Answer one.", "Question two?", "Answer two.", "Question three?")
    assert [asked.count(part) for part in texts] == [1] * 5
    assert (await host.messages(job)).count(SESSION_LOST_NOTICES[JobType.TASK]) == 1

    conversations.script({"text": "Answer four."})
    fourth = await conversations.user_says(job, "Question four?")
    assert (await turn(going_on, granted, 4, 1, fourth)).answered == [fourth]
    assert "Answer three." in conversations.asked[0]
    assert (await host.messages(job)).count(SESSION_LOST_NOTICES[JobType.TASK]) == 1


async def test_a_home_without_permissions_is_made_accessible(conversations: Conversations) -> None:
    host = conversations.host()
    granted, _ = await host.prepared()
    conversations.script({"text": "One."}, {"text": "Two."})
    await turn(host, granted)
    (host.sessions / granted.job.id).chmod(0o000)
    await turn(host, granted, 1, 2)
    assert (host.sessions / granted.job.id).stat().st_mode & 0o777 == 0o700
    assert json.dumps(conversations.asked).count("One.") > 0
