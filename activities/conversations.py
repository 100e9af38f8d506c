"""Where a turn takes a conversation up: its session, or what is known when that is lost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from activities import prompts
from activities.progress import Progress
from agent.inbox import UserMessage
from agent.sessions import (
    discard_transcripts,
    holds_message,
    read_transcript,
    restore_transcript,
)
from domain.ids import derived_id, new_id
from domain.jobs import Job, JobType
from domain.messages import Message
from store.protocol import Store

HISTORY_PAGE = 1000

BEGUN_AGAIN = {
    JobType.CODE: (
        "Claude has no session here to resume. It begins again with what is in the worktree."
    ),
    JobType.TASK: "Claude's session did not survive. It starts again with what is known.",
}


@dataclass(frozen=True, slots=True)
class Session:
    """Where a turn starts from: a transcript to resume, or None for a new session."""

    transcript: bytes | None
    first: list[UserMessage]


class Conversations:
    """The conversations of all jobs, on this machine and in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress = Progress(store)

    async def take_up(
        self,
        job: Job,
        config_dir: Path,
        message_ids: list[str],
        *,
        lease: int,
        was_begun: bool,
    ) -> Session:
        """Return what the next process starts from; the transcript lies in `config_dir` then.

        Args:
            job: whose conversation it is.
            config_dir: where Claude keeps it on this machine.
            message_ids: what the user has said since; messages that the transcript holds already
                are not sent again.
            lease: under which it goes on.
            was_begun: whether Claude may have worked for the job before.
        """
        users = await self._messages(job.id, message_ids)
        transcript = await self._transcript(job, config_dir)
        if transcript is None:
            discard_transcripts(config_dir, job.id)
            text = await self._begin_again(job, message_ids, lease) if was_begun else None
            return Session(None, [_opening(job, text), *users])
        unseen = [
            message
            for message in [_opening(job), *users]
            if not holds_message(transcript, message.id)
        ]
        # The CLI answers a message whose id it knows with silence, so this one's is always new.
        return Session(transcript, unseen or [UserMessage(new_id(), prompts.CONTINUE)])

    async def _transcript(self, job: Job, config_dir: Path) -> bytes | None:
        """Return the newest transcript that there is, and see that it is the one on disk."""
        on_disk = read_transcript(config_dir, job.id)
        if job.job_type is JobType.CODE:
            # It belongs to the files that it speaks of: on another machine, both begin anew.
            return on_disk
        saved = await self._store.load_session(job.id)
        # The CLI only appends (measured), so a transcript that does not begin with the saved one is
        # from before a turn on another machine.
        if saved is None or (on_disk is not None and on_disk.startswith(saved[1])):
            return on_disk
        restore_transcript(config_dir, job.id, saved[1])
        return saved[1]

    async def _begin_again(self, job: Job, message_ids: list[str], lease: int) -> str:
        await self._progress.say(
            job.id, BEGUN_AGAIN[job.job_type], once=("begun again", lease), lease=lease
        )
        if job.job_type is JobType.CODE:
            return prompts.begun_before(job)
        return prompts.retold(job, await self._told(job.id, message_ids))

    async def _told(self, job_id: str, beyond: Collection[str]) -> list[str]:
        """Return what was said so far, less the messages `beyond`, which are still to be sent."""
        told: list[str] = []
        after = 0
        while page := await self._store.read_messages(job_id, after, HISTORY_PAGE):
            told += [
                part
                for message in page
                if message.id not in beyond and (part := prompts.said(message))
            ]
            after = page[-1].seq or 0
            if len(page) < HISTORY_PAGE:
                break
        return told

    async def _messages(self, job_id: str, ids: list[str]) -> list[UserMessage]:
        return [as_user_message(each) for each in await self._store.messages_by_id(job_id, ids)]


def as_user_message(message: Message) -> UserMessage:
    """Return a line of the transcript as it is sent to Claude."""
    return UserMessage(message.id, message.content)


def _opening(job: Job, text: str | None = None) -> UserMessage:
    return UserMessage(derived_id(job.id, "prompt"), text or prompts.opening(job))
