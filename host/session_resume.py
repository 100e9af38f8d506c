"""Where a turn takes a conversation up: its session, or what is known when that is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from agent.claude import prompts
from agent.claude.session_files import SessionFiles, holds_message, usage_so_far
from agent.message_queue import UserMessage
from domain.jobs import Job, JobType, Usage
from domain.messages import Message
from domain.names.ids import derived_id, new_id
from host.job_progress import Progress
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
    """Where a turn starts from.

    `used` is what the session to resume has used so far; None for a new session.
    """

    used: Usage | None
    first: list[UserMessage]


class Conversations:
    """The conversations of all jobs, on this machine and in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress = Progress(store)

    async def resume_or_start(
        self,
        job: Job,
        files: SessionFiles,
        message_ids: list[str],
        *,
        lease: int,
        was_begun: bool,
    ) -> Session:
        """Return what the next process starts from; the transcript is among `files` then.

        Args:
            job: whose conversation it is.
            files: where Claude keeps it on this machine.
            message_ids: what the user has said since; messages that the transcript holds already
                are not sent again.
            lease: under which it goes on.
            was_begun: whether Claude may have worked for the job before.
        """
        users = await self._messages(job.id, message_ids)
        transcript = await self._transcript(job, files)
        guide = await asyncio.to_thread(prompts.read_guide, files.cwd)
        opening = prompts.opening(job, guide)
        if transcript is not None:
            messages = [_first_message(job, opening), *users]
            return await asyncio.to_thread(_resumed, transcript, messages)
        await asyncio.to_thread(files.discard)
        if was_begun:
            opening = await self._begin_again(job, guide, message_ids, lease)
        return Session(None, [_first_message(job, opening), *users])

    async def keep(self, job_id: str, session_file: bytes | None) -> None:
        """Save the session file after a turn.

        If there is none, an empty file is saved. The earlier file does not contain this turn, so
        the next turn must start a new session.
        """
        await self._store.save_session(job_id, job_id, session_file or b"")

    async def _transcript(self, job: Job, files: SessionFiles) -> bytes | None:
        """Return the newest transcript that there is, and see that it is the one on disk."""
        on_disk = await asyncio.to_thread(files.read)
        if job.job_type is JobType.CODE:
            # It belongs to the files that it speaks of: on another machine, both begin anew.
            return on_disk
        saved = await self._store.load_session(job.id)
        if saved is None:
            return on_disk
        if not saved[1]:
            return None
        # The CLI only appends (measured), so a transcript that does not begin with the saved one is
        # from before a turn on another machine.
        if on_disk is not None and on_disk.startswith(saved[1]):
            return on_disk
        await asyncio.to_thread(files.restore, saved[1])
        return saved[1]

    async def _begin_again(self, job: Job, guide: str, message_ids: list[str], lease: int) -> str:
        await self._progress.say(
            job.id, BEGUN_AGAIN[job.job_type], once=("begun again", lease), lease=lease
        )
        if job.job_type is JobType.CODE:
            return prompts.begun_before(job, guide)
        return prompts.retold(job, guide, await self._told(job.id, message_ids))

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
            after = page[-1].seq
            if len(page) < HISTORY_PAGE:
                break
        return told

    async def _messages(self, job_id: str, ids: list[str]) -> list[UserMessage]:
        return [as_user_message(each) for each in await self._store.messages_by_id(job_id, ids)]


def as_user_message(message: Message) -> UserMessage:
    """Return a line of the transcript as it is sent to Claude."""
    return UserMessage(message.id, message.content)


def _resumed(transcript: bytes, messages: list[UserMessage]) -> Session:
    """Return a session to resume, with those of the messages that it does not hold."""
    unseen = [message for message in messages if not holds_message(transcript, message.id)]
    # The CLI answers a message whose id it knows with silence, so this one's is always new.
    first = unseen or [UserMessage(new_id(), prompts.CONTINUE)]
    return Session(usage_so_far(transcript), first)


def _first_message(job: Job, text: str) -> UserMessage:
    return UserMessage(derived_id(job.id, "prompt"), text)
